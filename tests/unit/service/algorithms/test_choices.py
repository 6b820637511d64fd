from dataclasses import dataclass

import pytest

from service.algorithms.choices import competing, is_choice, warnings_of_choice, warnings_of_losses


@dataclass(frozen=True)
class Branch:
    learning_rate: float
    metric: float | None
    state: str = "lost"
    retry: int = 0


def chosen(learning_rate: float, metric: float, retry: int = 0) -> Branch:
    return Branch(learning_rate, metric, "chosen", retry)


def diverged(learning_rate: float, retry: int = 0) -> Branch:
    return Branch(learning_rate, None, "diverged", retry)


def codes(*branches: Branch, metric="val_loss") -> list[str]:
    return [warning.code for warning in warnings_of_choice(branches, metric)]


def test_several_candidates_are_a_choice_and_retries_of_a_single_one_are_none():
    assert is_choice([Branch(0.1, 0.5), chosen(0.2, 0.4)])
    assert not is_choice([])
    assert not is_choice([chosen(0.1, 0.5)])
    assert not is_choice([diverged(0.1), chosen(0.05, 0.5, retry=1)])


def test_the_last_retry_competes_and_what_is_smaller_than_an_undone_one():
    first = [diverged(1.0), diverged(0.5)]
    last = [Branch(0.1, 0.4, "rolled_back", 1), chosen(0.05, 0.5, retry=1), Branch(0.2, 0.6, retry=1)]
    assert competing([*first, *last]) == [last[1]]
    assert competing(first) == first
    assert competing([]) == []


def test_what_a_race_eliminated_does_not_compete_but_was_tried():
    looks = [Branch(1.0, 0.4, "eliminated"), Branch(0.01, 0.5, "eliminated"), diverged(3.0)]
    finalists = [Branch(0.3, 0.3), chosen(0.1, 0.2)]
    assert competing([*looks, *finalists]) == [looks[2], *finalists]
    assert is_choice([*looks, *finalists])
    assert codes(*looks, *finalists) == []  # 0.1 is no end of what was tried
    assert codes(*looks, Branch(0.1, 0.21), chosen(0.01, 0.2)) == ["lowest_tried"]
    [warning] = warnings_of_choice([*looks, Branch(0.3, 0.2), chosen(0.1, 0.2)], "val_loss")
    assert warning.message == (
        "the 2 left are as good as each other (val_loss 0.2 to 0.2): the choice between them says little"
    )
    [warning] = warnings_of_choice([*looks[:2], Branch(0.3, 0.2), chosen(0.1, 0.2)], "val_loss")
    assert warning.message.startswith("all 2 finalists are as good as each other")
    [warning] = warnings_of_choice([*looks, diverged(0.3), chosen(0.1, 0.2)], "val_loss")
    assert warning.message == "every finalist but 0.1 diverged: it may be close to diverging itself"


def test_a_choice_between_others_that_is_clear_needs_no_warning():
    assert codes(Branch(1.0, 0.9), chosen(0.1, 0.5), Branch(0.01, 0.6)) == []
    assert codes(Branch(1.0, 0.1), chosen(0.1, 0.5), Branch(0.01, 0.4), metric="val_accuracy") == []


def test_the_ends_of_what_was_tried():
    [lowest] = warnings_of_choice([Branch(1.0, 0.9), Branch(0.1, 0.7), chosen(0.01, 0.5)], "val_loss")
    assert lowest.code == "lowest_tried"
    assert lowest.message == (
        "0.01 is the lowest learning rate that was tried: a lower one may be better, widen lr_set"
    )
    [highest] = warnings_of_choice([chosen(1.0, 0.5), Branch(0.1, 0.7)], "val_loss")
    assert highest.code == "highest_tried"
    assert highest.message.startswith("1 is the highest learning rate that was tried: a higher one may be better")


def test_a_larger_one_that_diverged_or_was_undone_was_tried_too():
    assert codes(diverged(1.0), chosen(0.1, 0.5), Branch(0.01, 0.7)) == []
    assert codes(Branch(1.0, 0.4, "rolled_back"), chosen(0.1, 0.5), Branch(0.01, 0.7)) == []
    assert codes(diverged(1.0), diverged(0.8), chosen(0.1, 0.5, retry=1), Branch(0.08, 0.7, retry=1)) == []


def test_candidates_within_a_percent_of_the_best_tie():
    three = [Branch(1.0, 0.5), chosen(0.1, 0.502), Branch(0.01, 0.504)]
    [warning] = warnings_of_choice(three, "val_loss")
    assert warning.code == "all_tie"
    assert warning.message == (
        "all 3 candidates are as good as each other (val_loss 0.5 to 0.504): the choice between them says little"
    )
    assert codes(Branch(1.0, 0.5), chosen(0.1, 0.502), Branch(0.01, 0.506)) == []


def test_accuracies_tie_by_their_errors():
    # errors of 0.1005 and 0.1, then of 0.102 and 0.1
    assert codes(Branch(1.0, 0.8995), chosen(0.1, 0.9), Branch(0.01, 0.9), metric="val_accuracy") == ["all_tie"]
    assert codes(Branch(1.0, 0.898), chosen(0.1, 0.9), Branch(0.01, 0.9), metric="train_accuracy") == []
    assert codes(Branch(1.0, 1.0), chosen(0.1, 1.0), Branch(0.01, 1.0), metric="val_accuracy") == ["all_tie"]


def test_one_that_diverged_does_not_tie():
    [warning] = warnings_of_choice([diverged(1.0), Branch(0.01, 0.5), chosen(0.1, 0.5)], "val_loss")
    assert warning.message.startswith("the 2 left are as good as each other")


def test_the_last_one_left():
    [warning] = warnings_of_choice([diverged(1.0), chosen(0.1, 0.5), diverged(0.01)], "val_loss")
    assert warning.code == "one_left"
    assert warning.message == "every candidate but 0.1 diverged: it may be close to diverging itself"
    assert codes(diverged(1.0), diverged(0.3), chosen(0.1, 0.5)) == ["lowest_tried", "one_left"]


def test_an_epoch_without_a_choice_has_no_warning_about_one():
    assert codes() == []
    assert codes(chosen(0.1, 0.5)) == []
    assert codes(diverged(0.1), chosen(0.05, 0.5, retry=1)) == []


@pytest.mark.parametrize(
    ("losses", "rises"),
    [
        ([], 0),
        ([0.5], 0),
        ([0.5, 0.6, 0.7], 0),
        ([0.5, 0.6, 0.7, 0.8], 3),
        ([0.9, 0.5, 0.6, 0.7, 0.8, 0.81], 4),
        ([0.5, 0.6, 0.7, 0.7], 0),
        ([0.5, 0.6, 0.7, 0.8, 0.7], 0),
        ([0.5, None, 0.6, 0.7, 0.8], 0),
        ([0.5, 0.6, 0.7, 0.8, None], 0),
    ],
)
def test_a_loss_that_has_risen_for_three_epochs(losses, rises):
    found = warnings_of_losses(losses, 2)
    assert [warning.code for warning in found] == ["loss_rising"] * bool(rises)
    assert all(f"has risen for {rises} epochs in a row" in warning.message for warning in found)


def test_the_warning_about_the_loss_says_how_far_and_when_was_chosen():
    [warning] = warnings_of_losses([0.9, 0.5, 0.51, 0.55, 0.6], 2)
    assert warning.message == (
        "the validation loss has risen for 3 epochs in a row, from 0.5 to 0.6; the last choice was made at epoch 2"
    )
    [warning] = warnings_of_losses([0.5, 0.51, 0.55, 0.6], None)
    assert warning.message.endswith("; no learning rate was chosen")
