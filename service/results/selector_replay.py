"""What another selector would have chosen, from the branches that a job has stored: values in, values out, no SQL."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.algorithms.selectors import BranchResult, select
from service.spec.stpt import Selector
from service.store.records import Branch, EpochWithBranches


@dataclass(frozen=True)
class StoredEpoch:
    """An epoch with a Pre-train: its learning rate, and the branches that competed in the end. The chosen one stands
    for the epoch's learning rate, which is another than its own where a race trains between its finalists."""

    epoch: int
    learning_rate: float
    chosen: int | None  # number of the branch
    branches: Sequence[BranchResult]
    end_metrics: Mapping[int, float]  # of audited branches, by number


@dataclass(frozen=True)
class Replayed:
    """What another selector would have chosen at one epoch: `replayed`, beside the learning rate that was `recorded`;
    None where every branch diverged. `regret` is how much better, in the metric, the best audited branch ended than
    this choice; None where that is not known."""

    epoch: int
    recorded: float
    replayed: float | None  # learning rates
    regret: float | None


def stored_epoch(row: EpochWithBranches, competed: Sequence[Branch]) -> StoredEpoch:
    """An epoch that had a Pre-train as selectors are replayed on it, by the branches that competed in the end."""
    return StoredEpoch(
        epoch=row.epoch,
        learning_rate=row.learning_rate,
        chosen=next((branch.number for branch in competed if branch.state == "chosen"), None),
        branches=[branch_result(branch) for branch in competed],
        end_metrics={branch.number: branch.end_metric for branch in row.branches if branch.end_metric is not None},
    )


def branch_result(branch: Branch) -> BranchResult:
    """A stored branch as selectors are given it."""
    return BranchResult(branch.number, branch.learning_rate, math.nan if branch.metric is None else branch.metric)


def replay(
    selector: Selector, epochs: Sequence[StoredEpoch], *, initial_learning_rate: float, maximize: bool
) -> list[Replayed]:
    """Let `selector` choose at every epoch of one training, each time from the learning rate that this really had;
    `maximize` says whether a larger metric is better."""
    current, state = initial_learning_rate, dict[str, Any]()
    replayed = []
    for stored in epochs:
        decision = select(selector, stored.branches, current_learning_rate=current, maximize=maximize, state=state)
        rates = {branch.number: branch.learning_rate for branch in stored.branches}
        if stored.chosen is not None:
            rates[stored.chosen] = stored.learning_rate
        chosen = None if decision.chosen is None else rates[decision.chosen]
        replayed.append(
            Replayed(stored.epoch, stored.learning_rate, chosen, _regret(stored, decision.chosen, maximize))
        )
        current, state = stored.learning_rate, dict(decision.state)
    return replayed


def _regret(stored: StoredEpoch, chosen: int | None, maximize: bool) -> float | None:
    if chosen is None or chosen not in stored.end_metrics:
        return None
    ends = stored.end_metrics.values()
    return max(ends) - stored.end_metrics[chosen] if maximize else stored.end_metrics[chosen] - min(ends)
