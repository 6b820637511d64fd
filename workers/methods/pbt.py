"""Builds population-based training (Jaderberg et al. 2017, arXiv 1711.09846), a search by Ray Tune."""

from functools import partial
from typing import Any

from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from service.spec.methods.pbt import PbtMethod
from workers.tune.searchers import TIME, Ask, Space, tune_space


def within(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """The perturbed config of a trial, with every hyperparameter back inside its range in `space`."""
    for key, distribution in space.items():
        if distribution.choice is None:
            low, high = distribution.extremes
            config[key] = min(max(config[key], low), high)
    return config


def make_searcher(method: PbtMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of population-based training, its first hyperparameters drawn at random,
    for the job, seed and search space that `ask` names."""
    return BasicVariantGenerator(random_state=ask.seed)  # its scheduler takes no other


def make_scheduler(method: PbtMethod, space: Space, epochs: int) -> TrialScheduler:
    """Make the scheduler that has trials of low accuracy go on from the checkpoints of better ones, with perturbed
    hyperparameters. `space` has the ranges of these; a trial trains `epochs` epochs at most."""
    return PopulationBasedTraining(
        time_attr=TIME,
        perturbation_interval=method.interval(epochs),
        hyperparam_mutations=tune_space(space),
        custom_explore_fn=partial(within, space),
        synch=True,  # nobody copies from the past, and runs with one seed agree
    )
