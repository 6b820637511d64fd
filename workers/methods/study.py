"""Builds studies by Ray Tune, in which a trial is a training by the method of its variant."""

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
    """The searcher that proposes the trials of the study, a trial for each of its points, for the job, seed and search
    space that `ask` names."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)


def build_trial(method: StudyMethod, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Build a trial of the study, whose hyperparameters stand in `spec`: a training by the method of its variant."""
    [variant] = spec.methods
    return make_training(variant, 1, spec, data, workers)
