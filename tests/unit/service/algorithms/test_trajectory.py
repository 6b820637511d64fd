from dataclasses import dataclass

from service.algorithms.trajectory import best_of, newest_trajectory


@dataclass(frozen=True)
class Epoch:
    epoch: int
    attempt: int = 1
    val_accuracy: float = 0.5


def test_epochs_behind_the_one_that_was_trained_again_are_left_out() -> None:
    recorded = [Epoch(1, attempt=1), Epoch(2, attempt=3), Epoch(3, attempt=1), Epoch(4, attempt=2)]
    assert newest_trajectory(recorded) == recorded[:2]
    assert newest_trajectory(recorded[:1]) == recorded[:1]
    assert newest_trajectory([]) == []


def test_of_equally_good_epochs_the_first_is_the_best() -> None:
    epochs = [Epoch(1, val_accuracy=0.25), Epoch(3, val_accuracy=0.75), Epoch(2, val_accuracy=0.75)]
    assert best_of(epochs) == Epoch(2, val_accuracy=0.75)
