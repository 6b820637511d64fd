"""Builds a training by D-Adaptation (Defazio & Mishchenko 2023, arXiv 2301.07733) in the place of the job's
optimizer."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from service.spec.job import JobSpec
from service.spec.methods.d_adaptation import DAdaptationMethod
from service.spec.optimizer import AdamOptimizer, Optimizer
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import constant


def build(method: DAdaptationMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by D-Adaptation, its model as the seed of `spec` makes
    it, before its first step."""
    trainer = build_trainer(spec, data, workers, partial(make_optimizer, method, spec.optimizer))
    return constant(trainer, method.label, trial, method.learning_rate, spec.lr_schedule, counts_in_optimizer=True)


def make_optimizer(
    method: DAdaptationMethod, spec: Optimizer, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Make D-Adaptation of SGD for these parameters, or of Adam where the job's optimizer `spec` is Adam or AdamW, with
    its weight decay and momentum, or its betas and eps."""
    from dadaptation import DAdaptAdam, DAdaptSGD  # type: ignore[import-untyped]

    optimizer: torch.optim.Optimizer
    if isinstance(spec, AdamOptimizer):
        adam = {"betas": tuple(spec.betas), "eps": spec.eps, "decouple": spec.name == "adamw"}
        group = {"params": list(parameters), **adam}  # given `decouple` itself, the package prints a line
        optimizer = DAdaptAdam([group], lr=method.learning_rate, weight_decay=spec.weight_decay)
        return optimizer
    momentum = getattr(spec, "momentum", 0.0)
    optimizer = DAdaptSGD(parameters, lr=method.learning_rate, momentum=momentum, weight_decay=spec.weight_decay)
    for parameter in optimizer.param_groups[0]["params"]:  # as its first step does, which takes no zero gradients
        start = parameter.detach()
        optimizer.state[parameter] = {"z": start.clone(), "s": torch.zeros_like(start), "x0": start.clone()}
    return optimizer
