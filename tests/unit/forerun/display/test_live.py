import io
import json
import re
from typing import Any, get_args

import pytest
from rich.console import Console

from forerun.display import live
from service.spec.types import MAX_LEARNING_RATES
from service.wire.answers import (
    Branch,
    BranchOfEpoch,
    EpochEvent,
    Event,
    EventBranch,
    Job,
    StateEvent,
    TrialEvent,
    TrialResult,
    parse_event,
)
from service.wire.worker import BranchState
from tests.unit.forerun import service_double as double


def job(**changes: Any) -> Job:
    return Job.model_validate(double.job(**changes))


def succeeded(**changes: Any) -> Job:
    return Job.model_validate(double.succeeded(**changes))


def branch(*values: Any, **changes: Any) -> EventBranch:
    return EventBranch.model_validate(double.branch(*values, **changes))


def state_event(number: int, state: str, **more: Any) -> StateEvent:
    return StateEvent.model_validate(double.state_event(number, state, **more))


def trial_event(number: int, epochs: int, **changes: Any) -> TrialEvent:
    return TrialEvent.model_validate(double.trial_event(number, epochs, **changes))


def epoch_event(number: int, epoch: int, *branches: Branch, **changes: Any) -> EpochEvent:
    document = double.epoch_event(number, epoch, *(one.model_dump() for one in branches), **changes)
    return EpochEvent.model_validate(document)


FACTORS = (2.5, 2.0, 1.5, 1.0, 0.85, 0.7, 0.55, 0.4)
EIGHT = [
    branch(n, 0.1 * factor, None if n == 1 else 0.9 - n / 100, {1: "diverged", 5: "chosen"}.get(n, "lost"))
    for n, factor in enumerate(FACTORS, start=1)
]
RETRIED = [
    branch(1, 1.0, None, "diverged"),
    branch(2, 0.5, None, "diverged"),
    branch(3, 0.1, 0.81, "chosen", retry=1),
    branch(4, 0.05, 0.8, retry=1),
]
EVENTS: list[Event] = [
    state_event(1, "queued"),
    state_event(2, "submitting", attempt=1),
    state_event(3, "running", attempt=1),
    epoch_event(4, 1, learning_rate=0.005),
    epoch_event(5, 2, *EIGHT, learning_rate=0.085, val_accuracy=0.91234, test_accuracy=0.9),
    state_event(6, "recovering", attempt=1),
    state_event(7, "running", attempt=2),
    epoch_event(8, 3, *RETRIED, retries=1, seconds=1234.56),
    state_event(9, "succeeded", attempt=2),
]


def test_the_name_of_a_job_commands_no_terminal() -> None:
    """Jobs may be older than the rule about the characters of names."""
    heading = live.heading(job(name="\x1b]0;title\x07\nqueued"))
    assert heading.plain.endswith("(\ufffd]0;title\ufffd\ufffdqueued)")


AT_80 = """\
job-1: lenet5 on digits, 2 workers, batch 64, seed 0 (first try)
epoch  phase   learning rate  val acc  test acc   seconds
    each branch: learning rate val_accuracy (* chosen)
queued
submitting
running
  1/3  warmup          0.005   0.7500    0.7000       2.5
  2/3  stpt            0.085   0.9123    0.9000       2.5
      0.25 diverged     0.2 0.8800      0.15 0.8700       0.1 0.8600
    *0.085 0.8500      0.07 0.8400     0.055 0.8300      0.04 0.8200
recovering
running (attempt 2)
  3/3  stpt              0.1   0.7500    0.7000    1234.6
      1 diverged  0.5 diverged
    that came to nothing; retry 1 with smaller learning rates:
    *0.1 0.8100  0.05 0.8000
succeeded (attempt 2)
"""
AT_120 = AT_80.replace(
    """\
      0.25 diverged     0.2 0.8800      0.15 0.8700       0.1 0.8600
    *0.085 0.8500      0.07 0.8400     0.055 0.8300      0.04 0.8200
""",
    """\
      0.25 diverged     0.2 0.8800      0.15 0.8700       0.1 0.8600    *0.085 0.8500      0.07 0.8400
     0.055 0.8300      0.04 0.8200
""",
)


def console(width: int, *, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system="standard" if terminal else None
    )


def printed(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


@pytest.mark.parametrize(("width", "expected"), [(80, AT_80), (120, AT_120)])
def test_a_whole_job_where_there_is_no_terminal(width: int, expected: str) -> None:
    plain = console(width)
    live.follow(job(name="first try"), EVENTS, plain)
    assert printed(plain) == expected


def test_warnings_stand_below_the_branches_in_lines_that_fit() -> None:
    branches = [branch(1, 0.2, 0.5), branch(2, 0.1, 0.52, "chosen"), branch(3, 0.3, 0.51)]
    plain = console(60)
    live.follow(job(), [epoch_event(1, 1, *branches)], plain)
    assert printed(plain).split("\n")[-4:] == [
        "     0.2 0.5000  *0.1 0.5200   0.3 0.5100",
        "    warning: 0.1 is the lowest learning rate that was tried:",
        "    a lower one may be better, widen lr_set",
        "",
    ]


RISING = [epoch_event(n, n, branch(1, 0.1, 0.5, "chosen"), val_loss=0.4 + n / 10) for n in range(1, 6)]


def test_a_rising_loss_is_told_at_each_epoch_and_begins_anew_with_an_epoch_that_is_trained_again() -> None:
    plain = console(200)
    again = [epoch_event(6, 3, branch(1, 0.1, 0.5, "chosen"), val_loss=0.1), RISING[3]]
    live.follow(job(), [*RISING, *again], plain)
    warnings = [line for line in printed(plain).splitlines() if "warning" in line]
    assert warnings == [
        f"    warning: the validation loss has risen for {rises} epochs in a row, from 0.5 to {last}; "
        "no learning rate was chosen"
        for rises, last in ((3, 0.8), (4, 0.9))
    ]


def test_runs_are_told_apart_and_what_is_no_stpt_is_not_warned_of() -> None:
    sweep = [epoch_event(n, n, label="sweep", method="sweep", phase="scheduled", val_loss=n / 10) for n in range(1, 6)]
    other = [event.model_copy(update={"label": "short", "val_loss": 0.5}) for event in RISING]
    mixed: list[Event] = [event for three in zip(RISING[:3], sweep[:3], other[:3], strict=True) for event in three]
    spec = double.job()["spec"]
    spec["methods"] += [{"name": "stpt", "label": "short", "metric": "val_loss"}, {"name": "sweep"}]
    plain = console(200)
    live.follow(job(spec=spec), [*mixed, *sweep[3:], *other[3:]], plain)
    assert "warning" not in printed(plain)
    live.follow(job(spec=spec), [*mixed, RISING[3]], plain)
    assert printed(plain).count("warning") == 1


@pytest.mark.parametrize("width", [80, 120])
def test_64_branches_stand_in_columns_of_lines_that_fit(width: int) -> None:
    branches = [branch(n, 0.5 / n, 0.9 - n / 100, "chosen" if n == 64 else "lost") for n in range(1, 65)]
    assert len(branches) == MAX_LEARNING_RATES
    lines = live.epoch_row(epoch_event(1, 40, *branches), branches, 40, width).plain.split("\n")[1:]
    assert len(lines) == {80: 16, 120: 11}[width]
    assert max(map(len, lines)) <= width
    cells = [cell for line in lines for cell in re.findall(r"\S+ \S+", line)]
    assert (len(cells), cells[0], cells[-1]) == (64, "0.5 0.8900", "*0.007812 0.2600")


def test_a_narrow_width_has_one_branch_a_line() -> None:
    row = live.epoch_row(epoch_event(1, 1, *EIGHT), EIGHT, 3, 10)
    assert len(row.plain.split("\n")) == 1 + len(EIGHT)


def test_metrics_of_any_size() -> None:
    losses = [branch(1, 0.1, 2.30259, "chosen"), branch(2, 1.0, 1.5e30), branch(3, 0.5, -1234.5)]
    row = live.epoch_row(epoch_event(1, 1, *losses), losses, 3, 80)
    assert row.plain.split("\n")[1] == "    *0.1 2.3026        1 1.5e+30     0.5 -1.23e+03"


def test_in_a_terminal_the_rows_are_the_same_with_colours_and_a_bar_below() -> None:
    terminal = console(80, terminal=True)
    live.follow(job(name="first try"), EVENTS, terminal)
    text = printed(terminal)
    assert "3 of 3 epochs" in text
    assert "\x1b[1;32m*0.085 0.8500" in text  # bold green: chosen
    assert "\x1b[31m  0.25 diverged" in text  # red
    without_bar = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    for line in AT_80.splitlines():
        assert line in without_bar


def test_the_bar_follows_state_and_epochs() -> None:
    terminal = console(80, terminal=True)
    live.follow(job(), EVENTS[:4], terminal)
    last_frame = printed(terminal).split("running")[-1]
    assert "1 of 3 epochs" in last_frame


def test_events_of_a_kind_that_is_not_known_are_passed_over() -> None:
    plain = console(80)
    newer = parse_event(json.dumps({"number": 1, "kind": "telemetry", "created_at": "", "state": "x"}))
    live.follow(job(), [newer], plain)
    assert "x" not in printed(plain).splitlines()[-1].split()


def test_rows_of_trainings_without_search_say_which_they_are() -> None:
    plain = console(80)
    changes = {"label": "sweep", "trial": 12, "phase": "scheduled"}
    events = [
        epoch_event(1, 1, label="reference", phase="scheduled", learning_rate=0.01),
        epoch_event(2, 1, **changes),
        epoch_event(3, 2, **changes, learning_rate=0.2),
    ]
    live.follow(job(trials=13), events, plain)
    assert printed(plain).splitlines()[3:] == [
        "  1/3  reference 1           0.01   0.7500    0.7000       2.5",
        "  1/3  sweep 12            0.1   0.7500    0.7000       2.5",
        "  2/3  sweep 12            0.2   0.7500    0.7000       2.5",
    ]


def test_another_method_with_branches_is_no_phase_of_stpt() -> None:
    row = live.epoch_row(epoch_event(1, 1, label="autolrs", method="autolrs"), [], 3, 80).plain
    assert row.split()[1:3] == ["autolrs", "1"]


def test_two_runs_of_stpt_are_told_apart() -> None:
    rows = [
        live.epoch_row(epoch_event(number, 1, label=label, phase=phase), [], 3, 80).plain.split("  ")
        for number, (label, phase) in enumerate([("stpt", "warmup"), ("paper", "stpt")], start=1)
    ]
    assert [[cell.strip() for cell in row if cell.strip()][1] for row in rows] == ["warmup", "paper stpt"]


def test_the_bar_counts_the_epochs_of_every_training() -> None:
    terminal = console(80, terminal=True)
    events = [epoch_event(1, 1), epoch_event(2, 1, label="sweep"), epoch_event(3, 1, label="sweep", trial=2)]
    live.follow(job(trials=3), [*events, events[-1]], terminal)  # the last one twice: an attempt was lost
    assert "3 of 9 epochs" in printed(terminal)


def test_epochs_are_counted_against_those_that_each_training_has() -> None:
    events: list[Event] = [
        trial_event(1, 13),  # within a budget
        *(epoch_event(number, number - 1) for number in (2, 3, 4, 5)),
        epoch_event(6, 1, label="sweep", method="sweep", phase="scheduled"),
        trial_event(7, 2, label="tpe", method="tpe"),  # of a search, which adds it to the job's two trainings
        epoch_event(8, 1, label="tpe", method="tpe", phase="scheduled"),
    ]
    plain, terminal = console(80), console(80, terminal=True)
    live.follow(job(trials=2), events, plain)
    rows = [line.split()[:2] for line in printed(plain).splitlines()[3:]]
    assert rows == [
        *([f"{number}/13", "warmup"] for number in (1, 2, 3, 4)),
        ["1/3", "sweep"],
        ["1/2", "tpe"],
    ]
    live.follow(job(trials=2), events[:5], terminal)
    assert "4 of 16 epochs" in printed(terminal)  # 13, and the 3 of the sweep that has not begun
    terminal = console(80, terminal=True)
    live.follow(job(trials=2), events, terminal)
    assert "6 of 18 epochs" in printed(terminal)


def test_show_counts_against_the_epochs_that_each_training_has() -> None:
    plain = console(80)
    trials = [TrialResult.model_validate(double.trial_result(label="stpt", method="stpt", trial=1, length=13))]
    epochs = [epoch_event(1, 12), epoch_event(2, 1, label="sweep", method="sweep", phase="scheduled")]
    live.show(job(epochs=13, epochs_done=12), trials, epochs, [], plain)
    lines = printed(plain).splitlines()
    assert lines[2] == "    epochs         12 of 13"
    assert [line.split()[0] for line in lines[-2:]] == ["12/13", "1/3"]


def test_a_branch_that_was_undone_is_marked() -> None:
    branches = [branch(1, 0.4, 0.9, "rolled_back"), branch(2, 0.1, 0.8, "chosen")]
    terminal = console(80, terminal=True)
    terminal.print(live.epoch_row(epoch_event(1, 2, *branches), branches, 3, 80))
    assert "\x1b[31m 0.4 0.9000" in printed(terminal)  # red


def test_show_has_the_facts_and_the_rows() -> None:
    plain = console(80)
    known = succeeded(started_at="2025-01-01T00:00:10.5Z", submission_id="job-1-a1")
    others = {"label": "stpt", "method": "stpt", "trial": 1}
    branches = [
        BranchOfEpoch.model_validate({**b.model_dump(), **others, "epoch": epoch}) for epoch in (1, 2) for b in EIGHT
    ]
    live.show(known, [], [epoch_event(5, 2, learning_rate=0.085)], branches, plain)
    assert printed(plain) == (
        "job-1: lenet5 on digits, 2 workers, batch 64, seed 0\n"
        "    state          succeeded\n"
        "    epochs         3 of 3\n"
        "    test accuracy  0.9375\n"
        "    created        2025-01-01 00:00:00 UTC\n"
        "    started        2025-01-01 00:00:10 UTC\n"
        "    in Ray         job-1-a1\n"
        "epoch  phase   learning rate  val acc  test acc   seconds\n"
        "    each branch: learning rate val_accuracy (* chosen)\n"
        "  2/3  warmup          0.085   0.7500    0.7000       2.5\n"
        "      0.25 diverged     0.2 0.8800      0.15 0.8700       0.1 0.8600\n"
        "    *0.085 0.8500      0.07 0.8400     0.055 0.8300      0.04 0.8200\n"
    )


def test_show_says_why_a_job_failed() -> None:
    plain = console(80)
    live.show(job(state="failed", error={"code": "diverged", "message": "every branch diverged"}), [], [], [], plain)
    assert "    why            every branch diverged (diverged)\n" in printed(plain)
    assert "epoch  phase" not in printed(plain)


def test_nothing_that_a_user_wrote_commands_the_terminal() -> None:
    plain = console(80)
    live.follow(job(name="\x1b[2J\x9b31m[bold]ä"), [], plain)
    assert printed(plain).splitlines()[0].endswith("seed 0 (\ufffd[2J\ufffd31m[bold]ä)")


def test_every_state_of_a_branch_is_known() -> None:
    assert set(live.BRANCH_STYLES) < set(get_args(BranchState))
