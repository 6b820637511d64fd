"""Builds a training by DoG (Ivgi et al. 2023, arXiv 2302.12022) in the place of the job's optimizer."""

from functools import partial

from service.spec.job import JobSpec
from service.spec.methods.dog import DogMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.engine.trainer import Trainer
from workers.methods.base import Training
from workers.methods.scheduled import constant
from workers.optimizers.dog import AveragedDog

DISTANCE, DISTANCE_WITH_BATCH_NORM = 1e-6, 1e-4  # what the authors advise for `reps_rel` of their package
STEP_FACTOR = 1.0  # c of the paper, the package's `lr`, which the authors advise to leave


def build(method: DogMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by DoG, its model as the seed of `spec` makes it,
    before its first step."""
    trainer = build_trainer(spec, data, workers, partial(AveragedDog, weight_decay=spec.optimizer.weight_decay))
    for group in trainer.optimizer.param_groups:
        group["reps_rel"] = initial_distance(method, trainer)
    return constant(
        trainer,
        method.label,
        trial,
        STEP_FACTOR,
        "constant",
        counts_in_optimizer=True,
        remedy="a smaller initial_distance",
    )


def initial_distance(method: DogMethod, trainer: Trainer) -> float:
    """The length of the first step (r_epsilon of the paper) as a share of 1 + the norm of the initial weights: the
    method's own, or what the authors advise for the model."""
    if method.initial_distance is not None:
        return method.initial_distance
    return DISTANCE_WITH_BATCH_NORM if trainer.has_batch_norm else DISTANCE
