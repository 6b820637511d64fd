"""Builds the reference of STPT (Yamada et al., section III): a constant learning rate, divided when validation accuracy
saturates."""

from collections.abc import Sequence

from service.algorithms.lr_schedules import (
    reference_learning_rate,
)
from service.spec.job import JobSpec
from service.spec.methods.reference import ReferenceMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import Scheduled


def build(method: ReferenceMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by the reference, its model as the seed of `spec` makes
    it, before its first step."""
    trainer = build_trainer(spec, data, workers)

    def rates_of(_: int, val_accuracies: Sequence[float]) -> tuple[float, list[float]]:
        learning_rate = reference_learning_rate(method, val_accuracies)
        return learning_rate, [learning_rate] * trainer.iterations

    return Scheduled(trainer, method.label, trial, rates_of)
