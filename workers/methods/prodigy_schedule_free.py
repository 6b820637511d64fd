"""Builds a training by Prodigy with Schedule-Free (the package prodigy-plus-schedule-free) in the place of the job's
optimizer."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from service.spec.job import JobSpec
from service.spec.methods.prodigy_schedule_free import ProdigyScheduleFreeMethod
from service.spec.optimizer import Optimizer
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import constant


def build(method: ProdigyScheduleFreeMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by Prodigy with Schedule-Free, its model as the seed of
    `spec` makes it, before its first step."""
    trainer = build_trainer(spec, data, workers, partial(make_optimizer, method, spec.optimizer))
    return constant(trainer, method.label, trial, method.learning_rate, "constant", counts_in_optimizer=True)


def make_optimizer(
    method: ProdigyScheduleFreeMethod, spec: Optimizer, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Make Prodigy with Schedule-Free for these parameters, with the weight decay of the job's optimizer `spec`; the
    rest is as the package has it. There is one parameter group, so `split_groups` makes no difference; left at its
    default the package prints a line about that."""
    from prodigyplus import ProdigyPlusScheduleFree  # type: ignore[import-untyped]

    optimizer: torch.optim.Optimizer = ProdigyPlusScheduleFree(
        parameters, lr=method.learning_rate, weight_decay=spec.weight_decay, split_groups=False
    )
    return optimizer
