"""Selectors: the results of an epoch's branches in, the number of the chosen branch out. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BranchResult:
    """One branch after its alpha iterations. `metric` is NaN when the branch diverged."""

    number: int
    learning_rate: float
    metric: float

    @property
    def diverged(self) -> bool:
        return not math.isfinite(self.metric)


Selector = Callable[[Sequence[BranchResult], float, bool], int | None]


def greedy(branches: Sequence[BranchResult], current_learning_rate: float, maximize: bool) -> int | None:
    """S1, Algorithm 1: the best metric wins; None when every branch diverged.

    Ties go to the learning rate nearest the current one (as a ratio), then to the smaller.
    """
    alive = [branch for branch in branches if not branch.diverged]
    if not alive:
        return None

    def rank(branch: BranchResult) -> tuple[float, float, float]:
        metric = -branch.metric if maximize else branch.metric
        low, high = sorted((branch.learning_rate, current_learning_rate))
        # rounded: 1.25 x and 0.8 x are equally far, whatever the last bit of their logarithms says
        return metric, round(math.log(high / low), 9), branch.learning_rate

    return min(alive, key=rank).number


SELECTORS: dict[str, Selector] = {"greedy": greedy}
MAXIMIZE = {"val_accuracy": True, "train_accuracy": True, "val_loss": False}
