"""Guards of STPT: what saves a training from a bad choice (service.spec.stpt.Guards). Values in, decisions out."""

import math
from collections.abc import Sequence

from service.algorithms.selectors import BranchResult
from service.spec.stpt import Guards
from workers.engine.trainer import Measurement

EXTENSION = (0.1, 0.01)  # of the smallest candidate, when none improves on the epoch's start
DEAD = 0.99  # of the untrained net's loss: a branch above it has learned nothing


def is_dead(loss: float, untrained: float) -> bool:
    """Whether weights of this validation loss have learned nothing; NaN: they have not."""
    return not loss < DEAD * untrained


def improves(results: Sequence[BranchResult], start: float | None, *, maximize: bool) -> bool:
    """Whether any branch is better than the epoch's start.

    True also when the start's metric is not known, and when all have diverged: that calls for a retry.
    """
    metrics = [result.metric for result in results if not result.diverged]
    if start is None or not math.isfinite(start) or not metrics:
        return True
    return max(metrics) > start if maximize else min(metrics) < start


def extended(learning_rates: Sequence[float]) -> list[float]:
    """Far smaller candidates than any of these."""
    return [min(learning_rates) * factor for factor in EXTENSION]


def one_beyond(best: float, learning_rates: Sequence[float], largest: float) -> float | None:
    """Where the best of two learning rates or more is their largest or smallest: one more in that direction, as far as
    the last step, as a ratio. None where it lies between others, or where the new one would be above `largest`."""
    in_order = sorted(learning_rates)
    if best == in_order[-1]:
        neighbour = in_order[-2]
    elif best == in_order[0]:
        neighbour = in_order[1]
    else:
        return None
    beyond = best**2 / neighbour
    return beyond if beyond <= largest else None


def falls_too_far(guards: Guards, validation: Measurement, accuracies: Sequence[float]) -> bool:
    """Whether a Main-train has lost more accuracy than it may, against the last of the epochs before it."""
    before = accuracies[-1] if accuracies else 0.0
    return guards.rollback and validation.accuracy < before - guards.max_accuracy_drop
