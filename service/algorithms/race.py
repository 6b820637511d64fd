"""What a race tries: the learning rates of its rounds, each chosen from the looks of the round before. Pure functions.

A look trains from the untrained net at one learning rate and is judged by the mean of its weights over the last half.
Three things are known of short looks, by measurement (docs/selection.md):

- How long it is decides. From the untrained net a look of half a per cent of a training with SGD prefers steps three to
  thirty times too large; one of four per cent is within a factor of two of what ends best.
- With SGD the bias is on one side: the best learning rate falls as the look gets longer, about by the root of its
  length. Where steps are normalised (Adam, LARS, LAMB) it hardly moves, and rather up.
- It is no judge of nets that have not left their initial plateau: there a larger step gets further, and dies of it
  later. So the last round is the longest by far, and with SGD a round in which no net has left it is decided by the
  bias alone: downwards.

Hence three rounds: wide, to find the order of magnitude; a window below (SGD) or around its best; two finalists.
"""

import math
from collections.abc import Sequence

from service.spec.race import PROBES, WINDOW
from service.spec.types import allowed_learning_rate

STEP = math.sqrt(10)  # between neighbours
FAR = 10.0  # beyond an end that is best
FALLING = tuple(STEP**-power for power in range(WINDOW))
STEADY = (STEP, math.sqrt(STEP), 1.0, 1 / math.sqrt(STEP))


def falls(optimizer: str) -> bool:
    """Whether the best learning rate of that optimizer falls as the training gets longer: where its steps are not
    normalised."""
    return optimizer == "sgd"


def probe(tried: Sequence[float], best: float, largest: float) -> float:
    """The learning rate to look at next in the wide round: ten times beyond an end of those `tried` that is best, else
    half a step above it, or below where that has been tried."""
    if best == max(tried):
        rate = best * FAR
    elif best == min(tried):
        rate = best / FAR
    else:
        above = best * math.sqrt(STEP)
        rate = best / math.sqrt(STEP) if _among(above, tried) else above
    return allowed_learning_rate(rate, largest)


def window(best: float, optimizer: str, largest: float) -> list[float]:
    """The learning rates of the middle round, descending, by the best of the wide one."""
    return [allowed_learning_rate(best * factor, largest) for factor in (FALLING if falls(optimizer) else STEADY)]


def reach(first: Sequence[float], optimizer: str, largest: float) -> tuple[float, float]:
    """The smallest and the largest learning rate that a race from the looks `first` can try: by a window behind probes
    that all go beyond the same end."""
    low, high = min(first), max(first)
    for _ in range(PROBES):
        low, high = (allowed_learning_rate(rate, largest) for rate in (low / FAR, high * FAR))
    return min(window(low, optimizer, largest)), max(window(high, optimizer, largest))


def finalists(losses: Sequence[float], best: int, optimizer: str, *, early: bool) -> tuple[int, int]:
    """The places of the two that go on, of the middle round's `losses` (in the order of `window`; NaN: diverged), by
    the place of the best: it and its neighbour below with SGD, else the better of its neighbours. `early`: even the
    best has not left the plateau, so that with SGD the round tells nothing, and the lowest two go on.
    """
    if falls(optimizer) and early:
        return len(losses) - 2, len(losses) - 1
    neighbours = [place for place in (best + 1, best - 1) if 0 <= place < len(losses)]
    if falls(optimizer):
        return best, neighbours[0]
    return best, min(neighbours, key=lambda place: (not math.isfinite(losses[place]), losses[place]))


def between(finalists: Sequence[tuple[float, float]]) -> float | None:
    """The learning rate to train by, of finalists (learning rate, gain on the start in the metric): the geometric mean
    of their learning rates, weighed by their gains; None where none has gained. It has two digits, so that the last
    bits of a loss, which differ between placements, do not matter."""
    gained = [(rate, gain) for rate, gain in finalists if gain > 0]
    if not gained:
        return None
    total, rates = sum(gain for _, gain in gained), [rate for rate, _ in gained]
    mean = math.exp(sum(gain * math.log(rate) for rate, gain in gained) / total)
    return min(max(float(f"{mean:.2g}"), min(rates)), max(rates))


def _among(rate: float, tried: Sequence[float]) -> bool:
    return any(math.isclose(rate, other, rel_tol=1e-6) for other in tried)
