"""Builds a training by the 1cycle policy (Smith & Topin 2018, arXiv 1708.07120)."""

from collections.abc import Sequence

from service.algorithms.lr_schedules import one_cycle_factors
from service.spec.job import JobSpec
from service.spec.methods.one_cycle import OneCycleMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import Scheduled


def build(method: OneCycleMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by the 1cycle policy, its model as the seed of `spec`
    makes it, before its first step."""
    trainer = build_trainer(spec, data, workers)
    highest = method.learning_rate or spec.initial_learning_rate

    def rates_of(epoch: int, _: Sequence[float]) -> tuple[float, list[float]]:
        factors = one_cycle_factors(epoch=epoch, epochs=spec.epochs, iterations=trainer.iterations)
        return highest, [highest * factor for factor in factors]

    return Scheduled(trainer, method.label, trial, rates_of)
