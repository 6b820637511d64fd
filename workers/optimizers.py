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


@torch.no_grad()
def scale_momentum(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply SGD's momentum by `factor`; other optimizers have none that scales with the learning rate.

    torch's SGD takes steps of learning_rate x momentum: when the learning rate rises by 1 / factor, what momentum
    carries over would grow with it (Goyal et al. 2017, arXiv 1706.02677, section 2.1, for a gradual change).
    """
    if isinstance(optimizer, torch.optim.SGD) and factor != 1:
        for state in optimizer.state.values():
            if (momentum := state.get("momentum_buffer")) is not None:
                momentum.mul_(factor)
