"""Learning rates that are functions of the position in a training. Pure; shared by the engine and by users' replays."""

import math
from collections.abc import Sequence

from service.spec import Envelope, ReferenceMethod, Schedule


def envelope(kind: Envelope, progress: float) -> float:
    """What a learning rate is multiplied by at `progress`, from 0 (the first iteration) to 1 (after the last one)."""
    match kind:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":  # Loshchilov & Hutter 2017 (arXiv 1608.03983), equation 5, without restarts
            return (1.0 + math.cos(math.pi * progress)) / 2


def epoch_envelope(kind: Envelope, *, epoch: int, epochs: int, iterations: int) -> list[float]:
    """The envelope at each of the `iterations` of `epoch` (from 1) of `epochs`."""
    done, whole = (epoch - 1) * iterations, epochs * iterations
    return [envelope(kind, (done + iteration) / whole) for iteration in range(iterations)]


def schedule_learning_rates(schedule: Schedule, *, epoch: int, iterations: int) -> list[float]:
    """Applied at each of the `iterations` of `epoch` (from 1)."""
    kind = schedule.envelope if epoch > schedule.warmup_epochs else "constant"
    epochs, learning_rate = len(schedule.learning_rates), schedule.learning_rates[epoch - 1]
    return [learning_rate * x for x in epoch_envelope(kind, epoch=epoch, epochs=epochs, iterations=iterations)]


def schedule_learning_rate(schedule: Schedule, iteration: int, iterations_per_epoch: int) -> float:
    """Applied at `iteration` (from 0) of the whole training; after its end, that of the last iteration."""
    last = len(schedule.learning_rates) * iterations_per_epoch - 1
    epoch, within = divmod(min(iteration, last), iterations_per_epoch)
    return schedule_learning_rates(schedule, epoch=epoch + 1, iterations=iterations_per_epoch)[within]


def reference_learning_rate(method: ReferenceMethod, val_accuracies: Sequence[float]) -> float:
    """Of the epoch after those: divided each time that `patience` epochs went by without a new best accuracy (S1)."""
    learning_rate, best, since_best = method.learning_rate, -math.inf, 0
    for accuracy in val_accuracies:
        best, since_best = (accuracy, 0) if accuracy > best else (best, since_best + 1)
        if since_best == method.patience:
            learning_rate, since_best = learning_rate / method.factor, 0
    return learning_rate
