"""Builds asynchronous successive halving, a search by Ray Tune."""

from optuna.samplers import RandomSampler
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.asha import AshaMethod
from workers.tune.searchers import TIME, Ask, Space, proposed_by_optuna


def make_searcher(method: AshaMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of asynchronous successive halving, drawn at random, for the job, seed and
    search space that `ask` names."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)


def make_scheduler(method: AshaMethod, space: Space, epochs: int) -> TrialScheduler:
    """The scheduler that stops trials early by asynchronous successive halving. `space` has the ranges of their
    hyperparameters; a trial trains `epochs` epochs at most."""
    return ASHAScheduler(time_attr=TIME, max_t=epochs, grace_period=1, reduction_factor=method.reduction_factor)
