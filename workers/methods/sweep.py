"""Builds the conventional sweep (STPT, Yamada et al., Fig. 3): one learning rate a trial, for the whole length."""

from service.algorithms.candidates import first_candidates
from service.spec.job import JobSpec
from service.spec.methods.sweep import SweepMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import constant


def build(method: SweepMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training at the learning rate of that number, its model as the
    seed of `spec` makes it, before its first step."""
    rates = method.rates(first_candidates(spec))
    learning_rate = rates[(trial - 1) % len(rates)]
    return constant(build_trainer(spec, data, workers), method.label, trial, learning_rate, method.lr_schedule)
