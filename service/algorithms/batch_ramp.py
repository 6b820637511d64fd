"""The batch ramp: how large a batch may become (Signer & Barbier, "How to achieve large batch size training of a DNN
with SGD by adjusting hyperparameters?", section IV, after Smith & Le 2017, arXiv 1710.06451).

From a batch that reaches the best accuracy the batch is doubled, the learning rate following by the square root, until
validation accuracy falls; then it is doubled from the largest that was good with the momentum following instead, until
accuracy falls again. Values in, decision out: the next training depends on the results so far alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.spec.scaling import effective_learning_rate, scale, scaled_momentum


@dataclass(frozen=True)
class Step:
    """One training of a batch ramp: the global batch in samples, and the learning rate and momentum that go with it."""

    global_batch_size: int
    learning_rate: float
    momentum: float

    @property
    def effective_learning_rate(self) -> float:
        """The learning rate with what momentum adds to it: learning_rate / (1 - momentum)."""
        return effective_learning_rate(self.learning_rate, self.momentum)


@dataclass(frozen=True)
class Ramp:
    """Where a batch ramp stands: `next` is what it trains next, None when it has ended; `by_learning_rate` and
    `by_momentum` are the training with the largest batch that was good in each phase, None while there is none."""

    next: Step | None
    by_learning_rate: Step | None
    by_momentum: Step | None


def ramp(start: Step, val_accuracies: Sequence[float | None], *, tolerance: float, largest_batch: int) -> Ramp:
    """Return where a ramp from `start` stands after trainings that ended with `val_accuracies`, in order.

    An accuracy is from 0 to 1, or None where the training diverged or failed. It has fallen where it is None, or more
    than `tolerance` below the best before; no batch goes over `largest_batch` samples.
    """
    step = good = start
    best, by_learning_rate, by_momentum, learning_rate_ends = -math.inf, None, None, False
    for accuracy in val_accuracies:
        if accuracy is None or accuracy < best - tolerance:
            if learning_rate_ends or by_learning_rate is None:  # the first batch of all must be good
                return Ramp(None, by_learning_rate, by_momentum)
            learning_rate_ends = True
        elif learning_rate_ends:
            good = by_momentum = step
        else:
            good = by_learning_rate = step
        if accuracy is not None:
            best = max(best, accuracy)
        step = _doubled(good, by_momentum=learning_rate_ends)
        if step.global_batch_size > largest_batch:
            return Ramp(None, by_learning_rate, by_momentum)
    return Ramp(step, by_learning_rate, by_momentum)


def _doubled(step: Step, *, by_momentum: bool) -> Step:
    batch = 2 * step.global_batch_size
    factor = scale("sqrt", batch=batch, base_batch=step.global_batch_size)
    if by_momentum:
        return replace(step, global_batch_size=batch, momentum=scaled_momentum(step.momentum, factor))
    return replace(step, global_batch_size=batch, learning_rate=step.learning_rate * factor)
