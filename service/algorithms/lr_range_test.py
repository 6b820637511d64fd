"""The learning-rate range test (Smith 2017, arXiv 1506.01186, section 3.3), as fastai's and PyTorch Lightning's
`lr_find` have it: raise the learning rate exponentially, iteration by iteration, and read off the losses which to train
with."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.spec.methods.lr_range_test import Suggestion

NOISY = 10  # the first tenth of a test is the noise of single batches, and suggests nothing
MOST_POINTS, DIGITS = 100, 6  # of a curve that is kept, and the significant ones of its numbers


@dataclass(frozen=True)
class RangeTest:
    """What a learning-rate range test has seen: the learning rate and the smoothed loss of each iteration, in order.

    Where it `diverged`, the last learning rate is the one at which that showed; the last loss may then be NaN or inf.
    `planned`: the iterations of a test that does not diverge.
    """

    learning_rates: Sequence[float]
    smoothed_losses: Sequence[float]
    planned: int
    diverged: bool


def range_learning_rates(lowest: float, highest: float, iterations: int) -> list[float]:
    """The learning rate of each iteration of a range test: evenly spaced in the logarithm from `lowest` to `highest`,
    both of them tried; a single iteration has the lowest."""
    last = max(1, iterations - 1)
    return [min(highest, lowest * (highest / lowest) ** (iteration / last)) for iteration in range(iterations)]


def run_range_test(
    learning_rates: Sequence[float], losses: Iterable[float], *, smoothing: float, threshold: float
) -> RangeTest:
    """Run a range test over the training losses of its iterations, each measured before the step at its learning rate.

    Takes losses one by one, no more once the test has diverged: at a loss that is not finite, or where the smoothed
    loss is above `threshold` times its least value so far. Smoothed is the exponential moving average with weight
    `smoothing` on the past, freed of its bias to 0 by division by 1 - smoothing^i behind i losses (Kingma & Ba 2015,
    arXiv 1412.6980, section 3).
    """
    average, weight, least = 0.0, 1.0, math.inf
    smoothed: list[float] = []
    diverged = False
    for loss in losses:
        average, weight = smoothing * average + (1 - smoothing) * loss, weight * smoothing
        smoothed.append(average / (1 - weight))
        diverged = not (math.isfinite(smoothed[-1]) and smoothed[-1] <= threshold * least)
        if diverged or len(smoothed) == len(learning_rates):
            break
        least = min(least, smoothed[-1])
    return RangeTest(learning_rates[: len(smoothed)], smoothed, len(learning_rates), diverged)


def suggested_learning_rate(test: RangeTest, suggestion: Suggestion) -> float | None:
    """The learning rate to train with after a range test; None where the test suggests none.

    `divergence`: a tenth of the learning rate at which the loss diverged, or of the last one where it did not; none
    where the first loss is not finite already, before any step. `steepest`: the learning rate of the step behind which
    the smoothed loss fell the most, the logarithms being evenly spaced; none where it never fell.
    """
    if suggestion == "divergence":
        return test.learning_rates[-1] / 10 if math.isfinite(test.smoothed_losses[0]) else None
    losses = test.smoothed_losses[:-1] if test.diverged else test.smoothed_losses
    falls = [(losses[step] - losses[step + 1], step) for step in range(test.planned // NOISY, len(losses) - 1)]
    fall, step = max(falls, key=lambda known: known[0], default=(0.0, 0))
    return test.learning_rates[step] if fall > 0 else None


def curve_of(test: RangeTest) -> dict[str, list[float]]:
    """The curve of a range test to draw, as lists of equal length under `learning_rates` and `smoothed_losses`. A loss
    that is not finite is left out; of more than MOST_POINTS every second, third, … is kept, the last one among them."""
    known = [pair for pair in zip(test.learning_rates, test.smoothed_losses, strict=True) if math.isfinite(pair[1])]
    step = math.ceil(len(known) / MOST_POINTS) or 1
    kept = known[::-1][::step][::-1]
    return {
        "learning_rates": [_rounded(learning_rate) for learning_rate, _ in kept],
        "smoothed_losses": [_rounded(loss) for _, loss in kept],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
