"""The tree-structured Parzen estimator, as Optuna has it."""

from optuna.samplers import TPESampler
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.job import JobSpec
from service.spec.methods.tpe import TpeMethod
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import build_trial as build_constant
from workers.tune.searchers import Ask, Space, proposed_by_optuna


def make_searcher(method: TpeMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return proposed_by_optuna(TPESampler(seed=ask.seed), ask)


def make_scheduler(method: TpeMethod, space: Space, epochs: int) -> TrialScheduler | None:
    """Who stops trials early, of at most `epochs` epochs each; None: every trial trains to its end."""
    return None


def build_trial(method: TpeMethod, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """A trial, whose hyperparameters stand in `spec`."""
    return build_constant(method.label, spec, data, workers)
