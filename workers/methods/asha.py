"""Asynchronous successive halving."""

from optuna.samplers import RandomSampler
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.job import JobSpec
from service.spec.methods.asha import AshaMethod
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import build_trial as build_constant
from workers.tune.searchers import TIME, Ask, Space, proposed_by_optuna


def make_searcher(method: AshaMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)


def make_scheduler(method: AshaMethod, space: Space, epochs: int) -> TrialScheduler | None:
    """Who stops trials early, of at most `epochs` epochs each; None: every trial trains to its end."""
    return ASHAScheduler(time_attr=TIME, max_t=epochs, grace_period=1, reduction_factor=method.reduction_factor)


def build_trial(method: AshaMethod, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """A trial, whose hyperparameters stand in `spec`."""
    return build_constant(method.label, spec, data, workers)
