"""Builds random search, by Ray Tune."""

from optuna.samplers import RandomSampler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.random import RandomMethod
from workers.tune.searchers import Ask, proposed_by_optuna


def make_searcher(method: RandomMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of random search, for the job, seed and search space that `ask` names."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)
