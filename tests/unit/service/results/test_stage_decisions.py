"""Decisions of AutoLRS over written-out epochs: 20 iterations each, stages of 1, 2, 2 and 1 epochs, trials of 4."""

from typing import Any

import pytest

from service.algorithms.choices import ChoiceWarning
from service.results.decisions import Decision, RatedRate, Rule
from service.results.stage_decisions import decisions_of_stages
from service.spec.job import JobSpec
from service.spec.methods.autolrs import AutoLrsMethod
from service.store.records import EpochWithBranches
from tests.unit.service.results.test_decisions import row, tried


def stage(epoch: int, forecasts: dict[float, float | None], chosen: float, **changes: Any) -> EpochWithBranches:
    """The first epoch of a stage, with its trials: learning rate -> forecast."""
    branches = tried(forecasts, chosen)
    return row(epoch, branches, label="autolrs", method="autolrs", iterations=4 * len(branches) + 20, **changes)


def within(epoch: int, learning_rate: float, **changes: Any) -> EpochWithBranches:
    known = {"label": "autolrs", "method": "autolrs", "phase": "scheduled", "learning_rate": learning_rate}
    return row(epoch, [], **known | {"iterations": 20} | changes)


def decided(*rows: EpochWithBranches, **settings: Any) -> list[Decision]:
    stages = {"trials": 3, "stage_iterations": 20, "max_stage_iterations": 40, "trial_iterations": 4}
    methods = [{"name": "autolrs", **stages, **settings}]
    spec = JobSpec.model_validate({"model": "lenet5", "dataset": "digits", "epochs": 6, "methods": methods})
    [method] = spec.methods_of(AutoLrsMethod)
    return decisions_of_stages(spec, method, rows)


FIRST = {0.3: None, 0.05: 0.4, 0.01: 0.6}
SECOND = {0.2: 0.3, 0.1: 0.25, 0.02: 0.5}


def test_a_choice_with_all_its_numbers() -> None:
    [one] = decided(stage(1, FIRST, 0.05))
    assert (one.epoch, one.is_choice, one.chosen_at, one.learning_rate) == (1, True, 1, 0.05)
    assert one.why == ("the least loss that a trial's training losses forecast for the end of the stage, epoch 1, wins")
    assert one.rule == Rule(RatedRate(0.05, 0.4), RatedRate(0.01, 0.6), pytest.approx(0.2), None, [], [])
    assert [(c.learning_rate, c.metric, c.iterations, c.state, c.curve) for c in one.candidates] == [
        (0.3, None, 4, "diverged", ()),
        (0.05, 0.4, 4, "chosen", ()),
        (0.01, 0.6, 4, "lost", ()),
    ]
    assert [candidate.factor for candidate in one.candidates] == [3.0, 0.5, 0.1]  # of the initial 0.1
    assert (one.alternatives, one.warnings) == ([], [])


def test_within_a_stage_its_choice_stands() -> None:
    _, second, third = decided(stage(1, FIRST, 0.05), stage(2, SECOND, 0.1), within(3, 0.1))
    assert second.current_learning_rate == 0.05
    assert [candidate.factor for candidate in second.candidates] == [4.0, 2.0, 0.4]
    assert (third.is_choice, third.chosen_at, third.rule, third.candidates) == (False, 2, None, [])
    assert third.why == "the stage until epoch 3 is trained at the learning rate that was chosen at its start"


def test_behind_a_longest_stage_it_is_validation_losses_that_count() -> None:
    rows = [stage(1, FIRST, 0.05), stage(2, SECOND, 0.1), within(3, 0.1), stage(4, SECOND, 0.1), within(5, 0.1)]
    *_, last = decided(*rows, stage(6, SECOND, 0.1))
    assert last.why == (
        "the least loss that a trial's validation losses forecast for the end of the stage, epoch 6, wins"
    )


def test_warnings_name_the_setting_of_autolrs() -> None:
    [one] = decided(stage(1, {0.3: 0.4, 0.05: 0.5, 0.01: 0.6}, 0.3))
    message = "0.3 is the highest learning rate that was tried: a higher one may be better, widen search_interval"
    assert one.warnings == [ChoiceWarning("highest_tried", message)]
    [one] = decided(stage(1, {0.3: 0.401, 0.05: 0.4, 0.01: 0.4005}, 0.05))
    message = "all 3 candidates are as good as each other (forecast_loss 0.4 to 0.401): "
    assert one.warnings == [ChoiceWarning("all_tie", f"{message}the choice between them says little")]


def test_a_rising_loss_is_told() -> None:
    losses = {"val_loss": 0.1}, {"val_loss": 0.2}, {"val_loss": 0.3}, {"val_loss": 0.4}
    rows = [
        stage(1, FIRST, 0.05, **losses[0]),
        stage(2, SECOND, 0.1, **losses[1]),
        within(3, 0.1, **losses[2]),
        stage(4, SECOND, 0.1, **losses[3]),
    ]
    *_, last = decided(*rows)
    assert [warning.message for warning in last.warnings] == [
        "the validation loss has risen for 3 epochs in a row, from 0.1 to 0.4; the last choice was made at epoch 4"
    ]


def test_a_single_trial_is_no_choice() -> None:
    [one] = decided(stage(1, {0.05: 0.4}, 0.05), trials=1)
    assert (one.is_choice, one.chosen_at, one.rule, len(one.candidates)) == (False, None, None, 1)
    assert one.why == "a single learning rate is tried at the start of each stage"
