"""Multivariate TPE under Hyperband (after Falkner et al. 2018, arXiv 1807.01774)."""

from optuna.samplers import TPESampler
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.job import JobSpec
from service.spec.methods.bohb import BohbMethod
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.hyperband import HyperBand
from workers.methods.scheduled import build_trial as build_constant
from workers.tune.searchers import TIME, Ask, Space, proposed_by_optuna


def make_searcher(method: BohbMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return proposed_by_optuna(TPESampler(seed=ask.seed, multivariate=True), ask)


def make_scheduler(method: BohbMethod, space: Space, epochs: int) -> TrialScheduler | None:
    """Who stops trials early, of at most `epochs` epochs each; None: every trial trains to its end."""
    return HyperBand(time_attr=TIME, max_t=epochs, reduction_factor=method.reduction_factor)


def build_trial(method: BohbMethod, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """A trial, whose hyperparameters stand in `spec`."""
    return build_constant(method.label, spec, data, workers)
