"""Builds a training without search: scaling, warm-up and lr_schedule as the spec says."""

from collections.abc import Sequence

from service.algorithms.lr_schedules import (
    fixed_learning_rates,
    scaled_learning_rate,
    scaled_optimizer,
)
from service.spec.job import JobSpec
from service.spec.methods.fixed import FixedMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import Scheduled


def build(method: FixedMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by the schedule that the spec writes out, its model as
    the seed of `spec` makes it, before its first step."""
    spec = spec.model_copy(update={"optimizer": scaled_optimizer(method.scaling, spec)})
    trainer = build_trainer(spec, data, workers)

    def rates_of(epoch: int, _: Sequence[float]) -> tuple[float, list[float]]:
        applied = fixed_learning_rates(method, spec, epoch=epoch, iterations=trainer.iterations)
        return scaled_learning_rate(method, spec), applied

    return Scheduled(trainer, method.label, trial, rates_of)
