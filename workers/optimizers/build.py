"""Builds optimizers by name: torch's, and the layer-wise ones."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from service.spec.optimizer import AdamOptimizer, LambOptimizer, Optimizer, SgdOptimizer, TvlarsOptimizer
from workers.optimizers.lamb import Lamb
from workers.optimizers.lars import Lars
from workers.optimizers.tvlars import Tvlars

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "rmsprop": torch.optim.RMSprop,
    "lars": Lars,
    "lamb": Lamb,
}


def build_optimizer(
    spec: Optimizer,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    *,
    iterations: int,
    global_batch_size: int,
) -> torch.optim.Optimizer:
    """The optimizer of a spec for these parameters, at this learning rate.

    `iterations` are the steps of an epoch and `global_batch_size` is in samples: TVLARS counts and scales by them.
    """
    options = spec.model_dump(exclude={"name"})
    if isinstance(spec, TvlarsOptimizer):
        return _tvlars(spec, parameters, learning_rate, iterations, global_batch_size)
    if isinstance(spec, AdamOptimizer | LambOptimizer):
        options["betas"] = tuple(spec.betas)
    if isinstance(spec, SgdOptimizer) and spec.momentum == 0:
        del options["nesterov"]
    return OPTIMIZERS[spec.name](parameters, lr=learning_rate, **options)


def _tvlars(
    spec: TvlarsOptimizer, parameters: Iterable[nn.Parameter], learning_rate: float, iterations: int, batch: int
) -> Tvlars:
    """TVLARS (Do et al., section 4), with a = 1 and gamma_min = B / B_base x 0.001, `batch` being B in samples.

    The variant reference_code is as in the paper's code: a = 0.1, no delay, no gamma_min, and norms that count as at
    most 10.
    """
    options = spec.model_dump(exclude={"name", "variant", "delay_epochs", "minimum", "base_batch_size"})
    if spec.variant == "reference_code":
        return Tvlars(parameters, lr=learning_rate, alpha=0.1, max_norm=10.0, **options)
    minimum = batch / spec.base_batch_size * 1e-3 if spec.minimum is None else spec.minimum
    delay = spec.delay_epochs * iterations
    return Tvlars(parameters, lr=learning_rate, delay=delay, minimum=minimum, **options)


@torch.no_grad()
def scale_momentum(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the momentum of SGD, LARS and TVLARS by `factor`; others have none that scales with the learning rate.

    These take steps of learning_rate x momentum: when the learning rate rises by 1 / factor, what momentum
    carries over would grow with it (Goyal et al. 2017, arXiv 1706.02677, section 2.1, for a gradual change).
    """
    if isinstance(optimizer, torch.optim.SGD | Lars) and factor != 1:
        for state in optimizer.state.values():
            if (momentum := state.get("momentum_buffer")) is not None:
                momentum.mul_(factor)
