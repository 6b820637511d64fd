"""Builds a training by Prodigy (Mishchenko & Defazio 2023, arXiv 2306.06101) in the place of the job's optimizer, under
a cosine."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from service.spec.job import JobSpec
from service.spec.methods.prodigy import ProdigyMethod
from service.spec.optimizer import Optimizer
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import constant


def build(method: ProdigyMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by Prodigy, its model as the seed of `spec` makes it,
    before its first step."""
    trainer = build_trainer(spec, data, workers, partial(make_optimizer, method, spec.optimizer))
    return constant(trainer, method.label, trial, method.learning_rate, "cosine", counts_in_optimizer=True)


def make_optimizer(method: ProdigyMethod, spec: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Make Prodigy for these parameters, with the weight decay of the job's optimizer `spec`."""
    from prodigyopt import Prodigy  # type: ignore[import-untyped]

    optimizer: torch.optim.Optimizer = Prodigy(parameters, lr=method.learning_rate, weight_decay=spec.weight_decay)
    return optimizer
