"""Population-based training."""

from functools import partial
from typing import Any

from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from service.spec.job import JobSpec
from service.spec.methods.pbt import PbtMethod
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import build_trial as build_constant
from workers.tune.searchers import TIME, Ask, Space, tune_space


def _within(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """A perturbed config, back inside its ranges."""
    for key, distribution in space.items():
        if distribution.choice is None:
            low, high = distribution.extremes
            config[key] = min(max(config[key], low), high)
    return config


def make_searcher(method: PbtMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return BasicVariantGenerator(random_state=ask.seed)  # its scheduler takes no other


def make_scheduler(method: PbtMethod, space: Space, epochs: int) -> TrialScheduler | None:
    """Who stops trials early, of at most `epochs` epochs each; None: every trial trains to its end."""
    return PopulationBasedTraining(
        time_attr=TIME,
        perturbation_interval=method.perturbation_interval or max(1, epochs // 8),
        hyperparam_mutations=tune_space(space),
        custom_explore_fn=partial(_within, space),
        synch=True,  # nobody copies from the past, and runs with one seed agree
    )


def build_trial(method: PbtMethod, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """A trial, whose hyperparameters stand in `spec`."""
    return build_constant(method.label, spec, data, workers)
