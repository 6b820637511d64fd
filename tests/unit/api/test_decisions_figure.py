"""The figure of decisions: what it shows, read from its SVG; what it is to the eye is looked at by people."""

from collections.abc import Sequence
from typing import Any, get_args

import pytest

from api.decisions_figure import STATES, WARNINGS, decisions_figure
from service.algorithms.choices import ChoiceWarning, WarningCode
from service.results.decisions import Alternative, BranchPoint, Candidate, Decision, Rule
from service.wire.worker import BranchState
from tests.unit.api.test_figures import words


def candidate(learning_rate: float, metric: float | None, state: str = "lost", end: float | None = None) -> Candidate:
    curve = [BranchPoint(4, metric)] if metric is not None else []
    curve += [BranchPoint(20, end)] if end is not None else []
    return Candidate(1, 0, learning_rate, 1.0, metric, 4, 0.5, state, curve)


THREE = (candidate(0.3, 0.6), candidate(0.1, 0.5, "chosen", end=0.45), candidate(0.01, 0.7))


def decision(epoch: int, candidates: Sequence[Candidate] = THREE, **changes: Any) -> Decision:
    known: dict[str, Any] = {
        "phase": "stpt",
        "is_choice": len(candidates) > 1,
        "chosen_at": epoch,
        "why": "",
        "current_learning_rate": 0.1,
        "learning_rate": 0.1,
        "first_learning_rate": 0.1,
        "last_learning_rate": 0.1,
        "val_loss": 0.5,
        "val_accuracy": 0.8,
        "retries": 0,
        "rollbacks": 0,
        "regret": None,
        "rule": None,
        "alternatives": [],
        "warnings": [],
    }
    numbered = [Candidate(**vars(one) | {"number": number}) for number, one in enumerate(candidates, start=1)]
    return Decision(epoch=epoch, **known | changes, candidates=numbered)


def test_every_state_and_every_warning_can_be_drawn() -> None:
    assert set(STATES) == set(get_args(BranchState))
    assert set(WARNINGS) == set(get_args(WarningCode))


def test_a_choice_has_a_panel_and_epochs_without_one_have_none() -> None:
    shown = words(decisions_figure("$a on digits", [decision(1), decision(2, THREE[1:2])], "val_loss", "svg"))
    assert {"$a on digits", "epoch 1: 0.1", "epoch", "val_loss", "lost", "chosen", "end of the epoch"} <= set(shown)
    assert [word for word in shown if word.startswith("epoch ")] == ["epoch 1: 0.1"]
    assert {"0.01", "0.3"} <= set(shown)  # the ends of what was tried


def test_marks_and_lines_are_named_where_they_are_drawn() -> None:
    branches = [*THREE, candidate(3.0, None, "diverged"), candidate(1.0, 0.55, "rolled_back"), candidate(30.0, 9.0)]
    full = decision(
        1,
        branches,
        rule=Rule(None, None, None, threshold=0.515, ties=[], passed_over=[]),
        alternatives=[
            Alternative({"name": "tolerance", "tolerance": 0.03}, 0.3, None),
            Alternative({"name": "other"}, 0.1, None),
        ],
        warnings=[ChoiceWarning("all_tie", "they tie"), ChoiceWarning("loss_rising", "it rises")],
    )
    shown = set(words(decisions_figure("", [full], "val_loss", "svg")))
    assert {"diverged", "undone", "far off", "nearly as good", "tolerance's choice", "warning"} <= shown
    assert "all tie, loss rising" in shown
    assert "other's choice" not in shown  # it is that of the job
    plain = set(words(decisions_figure("", [decision(1)], "val_loss", "svg")))
    raced = decision(1, [*THREE, candidate(1.0, 0.55, "eliminated")])
    assert "no finalist" in words(decisions_figure("", [raced], "val_loss", "svg"))
    assert not plain & {
        "no finalist",
        "diverged",
        "undone",
        "far off",
        "nearly as good",
        "tolerance's choice",
        "warning",
    }


@pytest.mark.parametrize(("choices", "panels"), [(1, 1), (12, 12), (13, 7), (25, 9)])
def test_of_many_choices_some_are_shown(choices: int, panels: int) -> None:
    shown = words(decisions_figure("", [decision(epoch) for epoch in range(1, choices + 1)], "val_accuracy", "svg"))
    assert sum(word.startswith("epoch ") for word in shown) == panels


def test_near_the_best_possible_accuracy_none_is_far_off() -> None:
    best = [candidate(0.3, 0.95), candidate(0.1, 1.0, "chosen")]
    assert "far off" not in words(decisions_figure("", [decision(1, best)], "val_accuracy", "svg"))
    bad = [candidate(0.3, 0.8), candidate(0.1, 1.0, "chosen")]
    assert "far off" in words(decisions_figure("", [decision(1, bad)], "val_accuracy", "svg"))


def test_where_all_diverged_and_where_nothing_is_recorded() -> None:
    nothing = [candidate(0.1, None, "diverged"), candidate(0.2, None, "diverged"), candidate(0.01, 0.0, "chosen")]
    assert "diverged" in words(decisions_figure("", [decision(1, nothing)], "val_accuracy", "svg"))
    assert "no epoch is recorded yet" in words(decisions_figure("", [], "val_loss", "svg"))


def test_the_same_values_give_the_same_bytes() -> None:
    first, second = (decisions_figure("", [decision(1)], "val_loss", "svg") for _ in range(2))
    assert first == second
    assert decisions_figure("", [decision(1)], "val_loss", "png").startswith(b"\x89PNG\r\n\x1a\n")
