"""Builds a training by the job's optimizer with Mechanic (Cutkosky et al. 2023, arXiv 2306.00144) around it."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from service.algorithms.epoch_plan import iterations_per_epoch
from service.spec.job import JobSpec
from service.spec.methods.mechanic import MechanicMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.engine.optimizer import set_learning_rate
from workers.engine.state import materialise
from workers.methods.base import Training
from workers.methods.scheduled import constant
from workers.optimizers.build import build_optimizer

LEARNING_RATE = 1.0  # of the job's optimizer: the tuner's scale makes up for whatever it is
SUMS = ("s", "reward", "sum_squared_products", "max_product")  # the tuner's, a number for each of its betas
LEAST_PRODUCT = 1e-6  # the package's first value of max_product


def build(method: MechanicMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by the job's optimizer under Mechanic, its model as the
    seed of `spec` makes it, before its first step."""
    iterations = iterations_per_epoch(spec, len(data.train))
    trainer = build_trainer(spec, data, workers, partial(make_optimizer, method, spec, iterations))
    return constant(trainer, method.label, trial, LEARNING_RATE, spec.lr_schedule, remedy="another optimizer")


def make_optimizer(
    method: MechanicMethod, spec: JobSpec, iterations: int, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Make the optimizer of the job's `spec` for these parameters, with Mechanic around it. An epoch has so many
    `iterations`.

    The package makes the tuner's tensors in the first step, under a key of its own in the optimizer's state. Here they
    are made at once, by a step that changes nothing, and lie in the parameters' state, too, where copies and
    checkpoints find them.
    """
    from mechanic_pytorch import mechanize  # type: ignore[import-untyped]

    batch = spec.global_batch_size
    base = build_optimizer(spec.optimizer, parameters, LEARNING_RATE, iterations=iterations, global_batch_size=batch)
    materialise(base)
    mechanized = mechanize(type(base), s_decay=method.s_decay)
    optimizer: torch.optim.Optimizer = mechanized(base.param_groups, lr=LEARNING_RATE)  # they have all its options
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    set_learning_rate(optimizer, 0.0)
    optimizer.step()
    optimizer.zero_grad()
    set_learning_rate(optimizer, LEARNING_RATE)
    tuner: dict[Any, Any] = optimizer.state["_mechanic"]  # type: ignore[index]
    for name in SUMS:
        tuner[name].fill_(LEAST_PRODUCT if name == "max_product" else 0.0)
    for weight in weights:
        optimizer.state[weight] = base.state[weight] | {"reference": tuner[weight]["ref"]}
    optimizer.state[weights[0]] |= {name: tuner[name] for name in SUMS}
    return optimizer
