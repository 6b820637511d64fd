"""Optimizers by name, as torch makes them."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from service.spec import AdamOptimizer, Optimizer, SgdOptimizer

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "rmsprop": torch.optim.RMSprop,
}


def build_optimizer(spec: Optimizer, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    options = spec.model_dump(exclude={"name"})
    if isinstance(spec, AdamOptimizer):
        options["betas"] = tuple(spec.betas)
    if isinstance(spec, SgdOptimizer) and spec.momentum == 0:
        del options["nesterov"]
    return OPTIMIZERS[spec.name](parameters, lr=learning_rate, **options)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
