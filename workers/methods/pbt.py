"""Population-based training."""

from functools import partial
from typing import Any

from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from service.spec.methods.pbt import PbtMethod
from workers.tune.searchers import TIME, Ask, Space, tune_space


def within(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """Return a perturbed config, put back inside the ranges of its space."""
    for key, distribution in space.items():
        if distribution.choice is None:
            low, high = distribution.extremes
            config[key] = min(max(config[key], low), high)
    return config


def make_searcher(method: PbtMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return BasicVariantGenerator(random_state=ask.seed)  # its scheduler takes no other


def make_scheduler(method: PbtMethod, space: Space, epochs: int) -> TrialScheduler:
    """Who stops trials early, of at most `epochs` epochs each."""
    return PopulationBasedTraining(
        time_attr=TIME,
        perturbation_interval=method.interval(epochs),
        hyperparam_mutations=tune_space(space),
        custom_explore_fn=partial(within, space),
        synch=True,  # nobody copies from the past, and runs with one seed agree
    )
