"""What the training loop asks of an optimizer beyond its steps, whichever optimizer it is given."""

import math
from collections.abc import Iterable
from typing import Any

import torch


def is_averaging(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer is judged by an average of the weights that it trains, as Schedule-Free and DoG are: its
    methods `train` and `eval` must tell it which of the two are wanted."""
    return "train_mode" in optimizer.param_groups[0]


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate at which every parameter takes its next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def options_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The finite numbers in an optimizer's parameter groups, a mapping for each group: there Schedule-Free, Prodigy,
    DoG and D-Adaptation count their steps."""
    return [
        {
            key: value
            for key, value in group.items()  # an infinite one is a setting, and no JSON
            if isinstance(value, bool | int | float) and math.isfinite(value)
        }
        for group in optimizer.param_groups
    ]


def set_options(optimizer: torch.optim.Optimizer, options: Iterable[dict[str, Any]]) -> None:
    """Put back into the parameter groups what `options_of` gave, a mapping for each group."""
    for group, values in zip(optimizer.param_groups, options, strict=True):
        group.update(values)
