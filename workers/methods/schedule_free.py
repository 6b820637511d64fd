"""Schedule-Free in the place of the job's optimizer."""

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
    """Trial number `trial`, from 1: the model as the seed of `spec` makes it, before its first step."""
    optimizer = partial(make_optimizer, method, spec.optimizer)
    trainer = build_trainer(spec, data, workers, optimizer)
    learning_rate = learning_rate_of(method, spec.optimizer)
    return constant(trainer, method.label, trial, learning_rate, "constant", counts_in_optimizer=True)


def make_optimizer(
    method: ScheduleFreeMethod, spec: Optimizer, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Schedule-Free SGD, or AdamW where the job's optimizer is Adam or AdamW, with its weight decay and momentum."""
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
    """The method's own learning rate, or the default of the package."""
    if method.learning_rate is not None:
        return method.learning_rate
    return SCHEDULE_FREE_ADAMW if isinstance(spec, AdamOptimizer) else SCHEDULE_FREE_SGD
