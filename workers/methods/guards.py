"""The guards of STPT, which save a training from a bad choice (service.spec.stpt.Guards). Values in, decisions out."""

import math
from collections.abc import Sequence

from service.algorithms.selectors import BranchResult
from service.spec.stpt import Guards
from workers.engine.trainer import Measurement

EXTENSION = (0.1, 0.01)  # of the smallest candidate, when none improves on the epoch's start
DEAD = 0.99  # of the untrained net's loss: a branch above it has learned nothing
HARMED = 1.01  # above so much of it, weights are worse than untrained ones
EARLY = 0.9  # above so much of it, a net has not left its initial plateau


def is_dead(loss: float, untrained: float) -> bool:
    """Whether weights of this validation loss have learned nothing, compared to the loss of the untrained model. They
    have not where the loss is NaN."""
    return not loss < DEAD * untrained


def is_harmed(loss: float, untrained: float) -> bool:
    """Whether weights of this validation loss are worse than those of the untrained model. They are where the loss is
    NaN."""
    return not loss <= HARMED * untrained


def is_early(loss: float, untrained: float) -> bool:
    """Whether weights of this validation loss have not left the initial plateau of a net whose untrained model has the
    loss `untrained`. They have not where the loss is NaN."""
    return not loss < EARLY * untrained


def improves(results: Sequence[BranchResult], start: float | None, *, maximize: bool) -> bool:
    """Whether any branch is better than the epoch's start, whose metric is `start`.

    True also when that is not known, and when all branches have diverged: that calls for a retry.
    """
    metrics = [result.metric for result in results if not result.diverged]
    if start is None or not math.isfinite(start) or not metrics:
        return True
    return max(metrics) > start if maximize else min(metrics) < start


def extended(learning_rates: Sequence[float]) -> list[float]:
    """Learning rates to try in addition, far smaller than any of these."""
    return [min(learning_rates) * factor for factor in EXTENSION]


def one_beyond(best: float, learning_rates: Sequence[float], largest: float) -> float | None:
    """The next learning rate to try where the best of two or more is their largest or smallest: in that direction by as
    much as the last step, as a ratio. None where the best lies between others, or where the new one would be above
    `largest`."""
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
    """Whether a Main-train has lost more validation accuracy than the guards allow, against the last of `accuracies`,
    which are those of the epochs before it."""
    before = accuracies[-1] if accuracies else 0.0
    return guards.rollback and validation.accuracy < before - guards.max_accuracy_drop
