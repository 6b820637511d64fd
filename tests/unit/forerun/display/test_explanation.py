from typing import Any

import pytest

from forerun.display.explanation import text_of
from service.wire.answers import Decisions
from tests.unit.forerun.service_double import candidate, decided, decision, rule

FIVE = (
    candidate(1, 1.0, None, "diverged"),
    candidate(2, 0.3, 0.55),
    candidate(3, 0.1, 0.52, "chosen"),
    candidate(4, 0.03, 0.7),
    candidate(5, 0.01, 0.9),
)


def text(*items: dict[str, Any], **changes: Any) -> list[str]:
    return text_of(Decisions.model_validate(decided(*items, **changes))).split("\n")


def other(name: str, learning_rate: float | None) -> dict[str, Any]:
    return {"selector": {"name": name}, "learning_rate": learning_rate, "regret": None}


def warning(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


BEST = "Epoch 1: 5 candidates from 0.01 to 1; 0.1 was best (val_loss 0.52, next best 0.3 with 0.55); 1 diverged."


def test_a_choice_is_one_line() -> None:
    assert text(decision(1, *FIVE, rule=rule())) == [BEST]


def test_other_selectors_are_named_where_they_differ() -> None:
    alternatives = [other("tolerance", 0.3), other("same", 0.1), other("none", None)]
    assert text(decision(1, *FIVE, rule=rule(), alternatives=alternatives)) == [
        f"{BEST} tolerance would have taken 0.3."
    ]


def test_a_training_between_finalists_says_so_and_names_only_selectors_that_choose_another_one() -> None:
    alternatives = [other("same", 0.15), other("tolerance", 0.3)]
    assert text(decision(1, *FIVE, rule=rule(), learning_rate=0.15, alternatives=alternatives)) == [
        f"{BEST} The training takes 0.15, between the finalists by how much each had learned. "
        "tolerance would have taken 0.3."
    ]


def test_one_that_was_not_the_best_says_who_chose_it_and_by_how_much() -> None:
    near = rule(best={"learning_rate": 0.3, "metric": 0.515}, margin=-0.005, threshold=0.53045)
    near["runner_up"] = near["best"]
    [line] = text(decision(1, *FIVE[2:], rule=near), selector={"name": "tolerance", "tolerance": 0.03})
    assert line == (
        "Epoch 1: 3 candidates from 0.01 to 0.1; 0.1 was chosen by tolerance (val_loss 0.52, best was 0.3 with 0.515; "
        "nearly as good is up to 0.5304)."
    )


@pytest.mark.parametrize(
    ("ties", "told"), [([0.3], "0.3"), ([0.3, 0.03], "0.3 and 0.03"), ([0.3, 0.03, 0.01], "3 others")]
)
def test_ties(ties: list[float], told: str) -> None:
    [line] = text(decision(1, *FIVE, rule=rule(ties=ties, margin=0.0)))
    assert f"0.1 was best (val_loss 0.52, the same as {told})" in line


def test_what_came_to_nothing() -> None:
    [line] = text(decision(1, *FIVE, rule=rule(passed_over=[3.0]), retries=1, rollbacks=2, regret=0.0125))
    assert line == (
        f"{BEST[:-1]}; 2 chosen before it came to nothing and was undone; it took 1 retry with smaller ones. "
        "3 looked better, but had learned nothing. By the audit, another candidate ended the epoch better, by 0.0125."
    )
    [line] = text(decision(1, *FIVE, rule=rule(runner_up=None, margin=None), retries=2))
    assert line.endswith("0.1 was best (val_loss 0.52); 1 diverged; it took 2 retries with smaller ones.")


def test_a_choice_of_which_only_the_learning_rate_is_known() -> None:
    assert text(decision(1, *FIVE)) == ["Epoch 1: 5 candidates from 0.01 to 1; 0.1 was chosen; 1 diverged."]


def test_epochs_without_a_choice_are_one_line_as_long_as_the_reason_is_the_same() -> None:
    warm = decision(1, why="warm-up: nothing is tried", first_learning_rate=0.005, last_learning_rate=0.005)
    falling = {"why": "the search ended after epoch 2"}
    assert text(
        warm,
        decision(2, *FIVE, rule=rule()),
        decision(3, **falling, first_learning_rate=0.08, last_learning_rate=0.06),
        decision(4, **falling, first_learning_rate=0.06, last_learning_rate=0.0125),
    ) == [
        "Epoch 1: warm-up: nothing is tried: 0.005.",
        BEST.replace("Epoch 1", "Epoch 2"),
        "Epochs 3 to 4: the search ended after epoch 2: 0.08 to 0.0125.",
    ]


def test_warnings_stand_below_and_one_that_goes_on_is_told_as_it_was_last() -> None:
    lowest = warning("lowest_tried", "0.1 is the lowest")
    rising = [warning("loss_rising", f"it has risen for {rises} epochs") for rises in (3, 4)]
    lines = text(
        decision(1, *FIVE, rule=rule(), warnings=[lowest, warning("all_tie", "they tie")]),
        decision(2),
        *(decision(epoch, warnings=[one]) for epoch, one in zip((3, 4), rising, strict=True)),
    )
    assert lines == [
        BEST,
        "  Warning: 0.1 is the lowest.",
        "  Warning: they tie.",
        "Epochs 2 to 4: the search ended after epoch 1; the learning rate stays as it is: 0.1.",
        "  Warning: it has risen for 4 epochs.",
    ]


def test_nothing_commands_the_terminal_or_makes_a_line_of_its_own() -> None:
    lines = text(
        decision(
            1, *FIVE, rule=rule(), alternatives=[other("\x1b[31mred\n", 0.3)], warnings=[warning("x", "\x1b]0;a\nb")]
        ),
        decision(2, why="\x1b[2J\nEpoch 9: all is well"),
    )
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)
    assert lines[2].startswith("Epoch 2: \N{REPLACEMENT CHARACTER}[2J Epoch 9")


def test_before_the_first_epoch() -> None:
    assert text() == ["no epoch is recorded yet"]
