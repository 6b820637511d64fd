"""Selectors as pure functions: the results of an epoch's branches in, the chosen branch and the selector's state out.

To add one: a function here and a line in SELECTORS; in service/spec/stpt.py a type with its options, in the union of
selectors and their names. What `GET …/selector-replay` and its command take of options is theirs to say.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.spec.stpt import GreedySelector, Metric, Selector, ToleranceSelector

MAXIMIZE: dict[Metric, bool] = {"val_accuracy": True, "train_accuracy": True, "val_loss": False}


@dataclass(frozen=True)
class BranchResult:
    """One branch of a Pre-train after its alpha iterations. `metric` is NaN when the branch diverged."""

    number: int
    learning_rate: float
    metric: float

    @property
    def diverged(self) -> bool:
        """Whether the metric is not finite, so that the branch can never be chosen."""
        return not math.isfinite(self.metric)


@dataclass(frozen=True)
class Decision:
    """What a selector has decided: the number of the chosen branch, None when every branch diverged, and the state that
    it wants to be given at its next decision."""

    chosen: int | None
    state: Mapping[str, Any] = field(default_factory=dict)  # JSON


def select(
    selector: Selector,
    branches: Sequence[BranchResult],
    *,
    current_learning_rate: float,
    maximize: bool,
    state: Mapping[str, Any],
) -> Decision:
    """Let `selector` choose between the branches of a Pre-train; one that diverged is never chosen.

    `maximize`: whether a larger metric is better. `state`: that of the selector's last decision, {} at first.
    """
    alive = [branch for branch in branches if not branch.diverged]
    if not alive:
        return Decision(None, state)
    return SELECTORS[selector.name](selector, alive, current_learning_rate, maximize, state)


def _greedy(
    _: GreedySelector, alive: Sequence[BranchResult], current: float, maximize: bool, state: Mapping[str, Any]
) -> Decision:
    """STPT, Yamada et al., Algorithm 1: the best metric. Ties go to the learning rate nearest the current one (as a
    ratio), then to the smaller."""

    def rank(branch: BranchResult) -> tuple[float, float, float]:
        metric = -branch.metric if maximize else branch.metric
        low, high = sorted((branch.learning_rate, current))
        # rounded: 1.25 x and 0.8 x are equally far, whatever the last bit of their logarithms says
        return metric, round(math.log(high / low), 9), branch.learning_rate

    return Decision(min(alive, key=rank).number, state)


def _tolerance(
    selector: ToleranceSelector,
    alive: Sequence[BranchResult],
    current: float,
    maximize: bool,
    state: Mapping[str, Any],
) -> Decision:
    """The largest learning rate whose loss, or error (1 - accuracy), is at most 1 + tolerance times the best one."""
    losses = {branch.number: 1 - branch.metric if maximize else branch.metric for branch in alive}
    limit = min(losses.values()) * (1 + selector.tolerance)
    near = [branch for branch in alive if losses[branch.number] <= limit]
    return Decision(max(near, key=lambda branch: branch.learning_rate).number, state)


SELECTORS: dict[str, Callable[[Any, Sequence[BranchResult], float, bool, Mapping[str, Any]], Decision]] = {
    "greedy": _greedy,
    "tolerance": _tolerance,
}
