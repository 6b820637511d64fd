"""Random search."""

from optuna.samplers import RandomSampler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.random import RandomMethod
from workers.tune.searchers import Ask, proposed_by_optuna


def make_searcher(method: RandomMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)
