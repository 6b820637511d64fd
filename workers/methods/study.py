"""Studies: a trial is a training by its variant's method."""

from optuna.samplers import RandomSampler
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.job import JobSpec
from service.spec.methods.study import StudyMethod
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods import make_training
from workers.methods.base import Training
from workers.tune.searchers import Ask, proposed_by_optuna


def make_searcher(method: StudyMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """Who proposes the trials."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)


def build_trial(method: StudyMethod, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """A trial, whose hyperparameters stand in `spec`."""
    [variant] = spec.methods
    return make_training(variant, 1, spec, data, workers)
