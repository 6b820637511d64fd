"""Builds a training by Schedule-Free (Defazio et al. 2024, arXiv 2405.15682) in the place of the job's optimizer."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from service.spec.job import JobSpec
from service.spec.methods.schedule_free import ScheduleFreeMethod
from service.spec.optimizer import AdamOptimizer, Optimizer
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import constant

SCHEDULE_FREE_SGD, SCHEDULE_FREE_ADAMW = 1.0, 0.0025  # the package's default learning rates


def build(method: ScheduleFreeMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by Schedule-Free, its model as the seed of `spec` makes
    it, before its first step."""
    optimizer = partial(make_optimizer, method, spec.optimizer)
    trainer = build_trainer(spec, data, workers, optimizer)
    learning_rate = learning_rate_of(method, spec.optimizer)
    return constant(trainer, method.label, trial, learning_rate, "constant", counts_in_optimizer=True)


def make_optimizer(
    method: ScheduleFreeMethod, spec: Optimizer, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Make Schedule-Free SGD for these parameters, or AdamW where the job's optimizer `spec` is Adam or AdamW, with its
    weight decay and momentum."""
    from schedulefree import AdamWScheduleFree, SGDScheduleFree  # type: ignore[import-untyped]

    options: dict[str, Any] = {"lr": learning_rate_of(method, spec), "weight_decay": spec.weight_decay}
    optimizer: torch.optim.Optimizer
    if isinstance(spec, AdamOptimizer):
        optimizer = AdamWScheduleFree(parameters, **options, betas=tuple(spec.betas), eps=spec.eps)
    else:
        if momentum := getattr(spec, "momentum", 0):
            options["momentum"] = momentum
        optimizer = SGDScheduleFree(parameters, **options)
    return optimizer


def learning_rate_of(method: ScheduleFreeMethod, spec: Optimizer) -> float:
    """The learning rate of the training: the method's own, or where it has none the default of the package."""
    if method.learning_rate is not None:
        return method.learning_rate
    return SCHEDULE_FREE_ADAMW if isinstance(spec, AdamOptimizer) else SCHEDULE_FREE_SGD
