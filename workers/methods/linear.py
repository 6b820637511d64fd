"""Builds a training by one learning rate under a linear decay."""

from service.spec.job import JobSpec
from service.spec.methods.linear import LinearMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import constant


def build(method: LinearMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training under a linear decay, its model as the seed of `spec`
    makes it, before its first step."""
    learning_rate = method.learning_rate or spec.initial_learning_rate
    return constant(build_trainer(spec, data, workers), method.label, trial, learning_rate, "linear")
