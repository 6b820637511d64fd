"""Builds a training by the learning rates that an earlier job chose."""

from service.spec.job import JobSpec
from service.spec.methods.replay import ReplayMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import Scheduled, follow


def build(method: ReplayMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by the earlier job's schedule, its model as the seed of
    `spec` makes it, before its first step."""
    assert method.schedule is not None  # the door has put it in
    trainer = build_trainer(spec, data, workers)
    rates_of = follow(method.schedule, trainer)
    return Scheduled(trainer, method.label, trial, rates_of, rescales_momentum=method.schedule.rescale_momentum)
