"""Builds a training by warm-up, stable, decay (WSD, Hu et al. 2024, MiniCPM, arXiv 2404.06395)."""

from collections.abc import Sequence

from service.algorithms.lr_schedules import wsd_factors
from service.spec.job import JobSpec
from service.spec.methods.wsd import WsdMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import Scheduled


def build(method: WsdMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by warm-up, stable, decay, its model as the seed of
    `spec` makes it, before its first step."""
    trainer = build_trainer(spec, data, workers)
    highest = method.learning_rate or spec.initial_learning_rate

    def rates_of(epoch: int, _: Sequence[float]) -> tuple[float, list[float]]:
        factors = wsd_factors(method, epoch=epoch, epochs=spec.epochs, iterations=trainer.iterations)
        return highest, [highest * factor for factor in factors]

    return Scheduled(trainer, method.label, trial, rates_of)
