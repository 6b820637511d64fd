"""Asynchronous successive halving."""

from optuna.samplers import RandomSampler
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.asha import AshaMethod
from workers.tune.searchers import TIME, Ask, Space, proposed_by_optuna


def make_searcher(method: AshaMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)


def make_scheduler(method: AshaMethod, space: Space, epochs: int) -> TrialScheduler:
    """Who stops trials early, of at most `epochs` epochs each."""
    return ASHAScheduler(time_attr=TIME, max_t=epochs, grace_period=1, reduction_factor=method.reduction_factor)
