"""Builds grid search, by Ray Tune."""

from optuna.samplers import RandomSampler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.grid import GridMethod
from workers.tune.searchers import Ask, proposed_by_optuna


def make_searcher(method: GridMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of grid search, the points of the grid, for the job, seed and search space
    that `ask` names."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)
