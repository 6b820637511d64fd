"""Which of a trial's recorded epochs lie on the trajectory that goes on, and which of these is its best."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Recorded(Protocol):
    """What `newest_trajectory` asks of a recorded epoch: the number of the attempt that recorded it."""

    @property
    def attempt(self) -> int: ...


class Judged(Protocol):
    """What `best_of` asks of a recorded epoch: its number in the training, and its validation accuracy."""

    @property
    def epoch(self) -> int: ...
    @property
    def val_accuracy(self) -> float: ...


R = TypeVar("R", bound=Recorded)
J = TypeVar("J", bound=Judged)


def newest_trajectory(epochs: Sequence[R]) -> list[R]:
    """Return, of a trial's recorded epochs in order, those of its newest trajectory.

    An attempt that went back to epoch e and recorded e + 1 leaves later epochs of the attempt before it standing;
    those lie on another trajectory (where arithmetic is not reproducible), and nothing may go on from them.
    """
    kept: list[R] = []
    for epoch in epochs:
        if not kept or epoch.attempt >= kept[-1].attempt:
            kept.append(epoch)
    return kept


def best_of(epochs: Sequence[J]) -> J:
    """The epoch with the best validation accuracy; of equals the first, whose test accuracy `GET …/trials` has."""
    return max(epochs, key=lambda epoch: (epoch.val_accuracy, -epoch.epoch))
