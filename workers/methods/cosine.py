"""Builds a training by one learning rate under a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""

from service.spec.job import JobSpec
from service.spec.methods.cosine import CosineMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import constant


def build(method: CosineMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training under a cosine, its model as the seed of `spec` makes
    it, before its first step."""
    learning_rate = method.learning_rate or spec.initial_learning_rate
    return constant(build_trainer(spec, data, workers), method.label, trial, learning_rate, "cosine")
