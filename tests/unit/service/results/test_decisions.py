"""Decisions over written-out epochs: digits in 20 iterations an epoch, of which alpha are Pre-train."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.results.decisions import Alternative, BranchPoint, Decision, RatedRate, Rule, decisions_of
from service.spec.job import JobSpec
from service.spec.methods.stpt import StptMethod
from service.store.records import Branch, EpochWithBranches

ALPHA, BETA = 4, 16


def branch(number: int, learning_rate: float, metric: float | None, state: str = "lost", **changes: Any) -> Branch:
    known: dict[str, Any] = {"retry": 0, "end_metric": None, "iterations": ALPHA, "samples": 256, "seconds": 0.25}
    return Branch(number=number, learning_rate=learning_rate, metric=metric, state=state, **known | changes)


def tried(metrics: dict[float, float | None], chosen: float) -> list[Branch]:
    """The branches of one Pre-train: learning rate -> metric."""
    states = {
        rate: "chosen" if rate == chosen else "lost" if metrics[rate] is not None else "diverged" for rate in metrics
    }
    return [branch(n, rate, metric, states[rate]) for n, (rate, metric) in enumerate(metrics.items(), start=1)]


def row(epoch: int, branches: list[Branch], **changes: Any) -> EpochWithBranches:
    chosen = [one.learning_rate for one in branches if one.state == "chosen"]
    known: dict[str, Any] = {
        "id": epoch,
        "trial_id": 1,
        "label": "stpt",
        "method": "stpt",
        "trial": 1,
        "epoch": epoch,
        "attempt": 1,
        "fingerprint": "",
        "phase": "stpt",
        "learning_rate": chosen[0] if chosen else 0.1,
        "first_learning_rate": 0.1,
        "last_learning_rate": 0.05,
        "train_loss": 0.5,
        "val_loss": 0.5,
        "val_accuracy": 0.75,
        "test_accuracy": 0.7,
        "retries": 0,
        "rollbacks": 0,
        "iterations": sum(one.iterations for one in branches) + BETA,
        "samples": 0,
        "evaluation_samples": 0,
        "seconds": 2.0,
        "pretrain_seconds": 0.5,
        "main_train_seconds": 1.0,
        "audit": None,
        "source_trial": None,
        "source_epoch": None,
        "checkpoint": None,
        "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return EpochWithBranches(**known | changes, branches=branches)


STAGES = {"stages": [{"factors": [10, 3, 1, 0.3, 0.1]}, {"factors": [2, 1, 0.5]}]}


def decided(*rows: EpochWithBranches, spec: dict[str, Any] | None = None, **settings: Any) -> list[Decision]:
    """The decisions of a job of two stages, unless `spec` has another lr_set, or `settings` of its stpt have."""
    known = {"model": "lenet5", "dataset": "digits", "epochs": 8, "lr_set": STAGES}
    job = JobSpec.model_validate(known | {"methods": [{"name": "stpt", **settings}]} | (spec or {}))
    [method] = job.methods_of(StptMethod)
    return decisions_of(job, method, rows)


FIVE = {1.0: None, 0.3: 0.55, 0.1: 0.52, 0.03: 0.7, 0.01: 0.9}
GREEDY = {"name": "greedy"}
TOLERANCE = {"name": "tolerance", "tolerance": 0.03}


def test_a_choice_with_all_its_numbers():
    [one] = decided(row(1, tried(FIVE, 0.1), val_loss=0.4))
    assert (one.epoch, one.is_choice, one.chosen_at, one.learning_rate, one.current_learning_rate) == (
        1,
        True,
        1,
        0.1,
        0.1,
    )
    assert one.why == "selector greedy by val_loss: The best metric wins."
    assert one.rule == Rule(
        best=RatedRate(0.1, 0.52),
        runner_up=RatedRate(0.3, 0.55),
        margin=pytest.approx(0.03),
        threshold=None,
        ties=[],
        passed_over=[],
    )
    assert one.alternatives == [Alternative(TOLERANCE, 0.1, None)]  # 0.55 is above 1.03 x 0.52
    assert one.warnings == []
    assert [candidate.factor for candidate in one.candidates] == [10.0, 3.0, 1.0, 0.3, 0.1]
    assert [candidate.state for candidate in one.candidates] == ["diverged", "lost", "chosen", "lost", "lost"]
    assert [candidate.curve for candidate in one.candidates] == [
        [],  # the untrained net's loss is not stored, that of one that diverged neither
        [BranchPoint(4, 0.55)],
        [BranchPoint(4, 0.52), BranchPoint(20, 0.4)],
        [BranchPoint(4, 0.7)],
        [BranchPoint(4, 0.9)],
    ]


def test_curves_begin_where_the_epoch_before_ended_and_audited_ones_go_on_to_the_epoch_s_end():
    audited = [branch(1, 0.2, 0.45, end_metric=0.35), branch(2, 0.1, 0.44, "chosen", end_metric=0.38)]
    audit = {"branches": 1, "samples": 1024, "regret": 0.03, "rank_correlation": None}
    _, one = decided(row(1, tried({0.3: 0.6, 0.1: 0.5}, 0.1)), row(2, audited, val_loss=0.38, audit=audit))
    assert [candidate.curve for candidate in one.candidates] == [
        [BranchPoint(0, 0.5), BranchPoint(4, 0.45), BranchPoint(20, 0.35)],
        [BranchPoint(0, 0.5), BranchPoint(4, 0.44), BranchPoint(20, 0.38)],
    ]
    assert one.regret == 0.03
    assert one.alternatives == [Alternative(TOLERANCE, 0.2, 0.0)]


@pytest.mark.parametrize(
    ("metric", "points"),
    [
        ("val_accuracy", [BranchPoint(0, 0.75), BranchPoint(4, 0.8), BranchPoint(20, 0.9)]),
        ("train_accuracy", [BranchPoint(4, 0.8)]),  # of an epoch's end the validation alone is stored
    ],
)
def test_curves_are_in_the_metric(metric, points):
    _, one = decided(
        row(1, tried({0.2: 0.6, 0.1: 0.7}, 0.1)),
        row(2, tried({0.2: 0.7, 0.1: 0.8}, 0.1), val_accuracy=0.9),
        metric=metric,
    )
    assert one.candidates[1].curve == points
    assert one.rule is not None
    assert one.rule.margin == pytest.approx(0.1)


def test_a_branch_of_the_whole_epoch_has_one_end():
    whole = [branch(1, 0.2, 0.6, iterations=20), branch(2, 0.1, 0.5, "chosen", iterations=20)]
    [one] = decided(row(1, whole, iterations=40, val_loss=0.45))
    assert one.candidates[1].curve == [BranchPoint(20, 0.5)]


def test_the_numbers_of_tolerance():
    near = {0.3: 0.51, 0.1: 0.5, 0.01: 0.6}
    [one] = decided(row(2, tried(near, 0.3)), selector="tolerance")
    assert one.why == "selector tolerance by val_loss: The largest that is nearly as good as the best."
    assert one.rule == Rule(
        best=RatedRate(0.1, 0.5),
        runner_up=RatedRate(0.1, 0.5),
        margin=pytest.approx(-0.01),
        threshold=pytest.approx(0.515),
        ties=[],
        passed_over=[],
    )
    assert one.alternatives == [Alternative(GREEDY, 0.1, None)]
    [one] = decided(
        row(2, tried({0.3: 0.79, 0.1: 0.8}, 0.3)), selector=TOLERANCE | {"tolerance": 0.1}, metric="val_accuracy"
    )
    assert one.rule is not None
    assert one.rule.threshold == pytest.approx(0.78)  # an error of 0.2, and a tenth of that more


def test_ties_have_the_very_metric():
    [one] = decided(row(2, tried({0.3: 0.5, 0.1: 0.5, 0.01: 0.501}, 0.1)))
    assert one.rule is not None
    assert (one.rule.ties, one.rule.margin) == ([0.3], 0.0)
    assert [warning.code for warning in one.warnings] == ["all_tie"]


def test_a_net_that_learned_nothing_is_passed_over_in_the_first_epoch_alone():
    dead = tried({10.0: 0.4, 0.1: 0.5, 0.01: 0.6}, 0.1)
    [one] = decided(row(1, dead))
    assert one.rule == Rule(
        RatedRate(0.1, 0.5), RatedRate(0.01, 0.6), pytest.approx(0.1), threshold=None, ties=[], passed_over=[10.0]
    )
    assert one.alternatives == [Alternative(TOLERANCE, 0.1, None)]  # it would not have been given it, either
    [later] = decided(row(2, dead))
    assert later.rule is not None
    assert (later.rule.passed_over, later.rule.best) == ([], RatedRate(10.0, 0.4))
    [without] = decided(row(1, dead), guards={"skip_dead": False})
    assert without.rule is not None
    assert without.rule.passed_over == []


def test_after_retries_and_rollbacks_the_rule_is_about_those_that_competed_in_the_end():
    branches = [
        *[branch(1, 1.0, None, "diverged"), branch(2, 0.5, None, "diverged")],
        *[branch(3, 0.1, 0.4, "rolled_back", retry=1), branch(4, 0.05, 0.5, "chosen", retry=1)],
        branch(5, 0.01, 0.6, retry=1),
    ]
    [one] = decided(row(3, branches, retries=1, rollbacks=1, iterations=5 * ALPHA + 2 * BETA))
    assert one.rule == Rule(RatedRate(0.05, 0.5), RatedRate(0.01, 0.6), pytest.approx(0.1), None, [], [])
    assert (one.retries, one.rollbacks, len(one.candidates)) == (1, 1, 5)
    assert one.candidates[3].curve[-1] == BranchPoint(20, 0.5)
    assert one.warnings == []


def test_the_current_learning_rate_is_the_last_epoch_s_and_a_warm_up_leaves_it():
    rows = [row(1, [], phase="warmup", learning_rate=0.005), row(2, tried({0.4: 0.6, 0.2: 0.5}, 0.2))]
    rows.append(row(3, tried({0.4: 0.6, 0.1: 0.5}, 0.1)))
    first, second, third = decided(*rows, warmup={"epochs": 1}, spec={"initial_learning_rate": 0.2})
    assert first.why == "warm-up: the learning rate is set until epoch 1, nothing is tried"
    assert (first.is_choice, first.chosen_at, first.rule, first.candidates, first.alternatives) == (
        False,
        None,
        None,
        [],
        [],
    )
    assert [one.current_learning_rate for one in (first, second, third)] == [0.2, 0.2, 0.2]
    assert [candidate.factor for candidate in third.candidates] == [2.0, 0.5]


def test_after_the_search_the_choice_stands_and_says_why():
    rows = [row(1, tried(FIVE, 0.1)), row(2, tried({0.2: 0.5, 0.1: 0.4}, 0.1))]
    rows += [row(epoch, tried({0.1: 0.3}, 0.1)) for epoch in (3, 4)]
    *_, last = decided(*rows)
    assert last.why == "the search ended after epoch 2; the learning rate follows its schedule (linear)"
    assert (last.is_choice, last.chosen_at, last.rule, last.alternatives) == (False, 2, None, [])
    assert [candidate.learning_rate for candidate in last.candidates] == [0.1]
    *_, last = decided(*rows, spec={"lr_schedule": "constant"})
    assert last.why == "the search ended after epoch 2; the learning rate stays as it is"
    *_, last = decided(*rows, spec={"lr_set": {"learning_rates": [0.1]}})
    assert last.why == "the learning-rate set has a single candidate at this epoch"


# --- races -------------------------------------------------------------------------------------------

RACE = {"lr_set": {"kind": "race"}}
WIDE = {1.0: None, 0.3: 0.9, 0.1: 0.8, 0.03: 1.1, 0.01: 1.5, 0.178: 0.82, 0.0562: 0.95}
WINDOW = {0.1: 0.6, 0.0316: 0.62, 0.01: 0.7, 0.00316: 0.9}
FINALS = {0.1: 0.52, 0.0316: 0.5}


def raced(
    epoch: int = 1, finals: dict[float, float] = FINALS, chosen: float = 0.0316, **changes: Any
) -> EpochWithBranches:
    """An epoch behind a race: 7 looks of 1 iteration, 4 of 3, two finalists that go on for 10; then 20 anew."""
    rounds = [(WIDE, 1, "eliminated"), (WINDOW, 3, "eliminated"), (finals, 10, "lost")]
    looks = [(rate, metric, length, state) for rates, length, state in rounds for rate, metric in rates.items()]
    branches = [
        branch(number, rate, metric, "diverged" if metric is None else state, iterations=length)
        for number, (rate, metric, length, state) in enumerate(looks, start=1)
    ]
    place = next(place for place in (11, 12) if branches[place].learning_rate == chosen)
    branches[place] = replace(branches[place], state="chosen")
    return row(epoch, branches, iterations=39 + 20, **changes)


def test_a_race_is_a_choice_between_its_finalists():
    [one] = decided(raced(), spec=RACE)
    assert (one.is_choice, one.chosen_at, one.learning_rate, one.why) == (
        True,
        1,
        0.0316,
        "selector greedy by val_loss: The best metric wins.",
    )
    assert one.rule == Rule(RatedRate(0.0316, 0.5), RatedRate(0.1, 0.52), pytest.approx(0.02), None, [], [])
    assert one.alternatives == [Alternative(TOLERANCE, 0.0316, None)]  # 0.52 is above 1.03 x 0.5
    [near] = decided(raced(finals={0.1: 0.51, 0.0316: 0.5}), spec=RACE)
    assert near.alternatives == [Alternative(TOLERANCE, 0.1, None)]
    assert one.warnings == []
    assert [candidate.state for candidate in one.candidates] == [
        *["diverged", *["eliminated"] * 6],
        *["eliminated"] * 4,
        *["lost", "chosen"],
    ]
    assert [candidate.factor for candidate in one.candidates][-2:] == [1.0, 0.316]


def test_a_selector_that_chooses_the_same_finalist_has_the_learning_rate_between_them():
    [same] = decided(raced(learning_rate=0.054), spec=RACE)
    assert (same.learning_rate, same.alternatives) == (0.054, [Alternative(TOLERANCE, 0.054, None)])
    [near] = decided(raced(finals={0.1: 0.51, 0.0316: 0.5}, learning_rate=0.054), spec=RACE)
    assert near.alternatives == [Alternative(TOLERANCE, 0.1, None)]


def test_finalists_go_on_from_where_their_looks_ended_and_none_gets_to_the_epoch_s_end():
    [one] = decided(raced(val_loss=0.4), spec=RACE)
    assert [candidate.iterations for candidate in one.candidates] == [1] * 7 + [3] * 4 + [13] * 2
    assert [candidate.curve for candidate in one.candidates][6:] == [
        [BranchPoint(1, 0.95)],
        *[[BranchPoint(3, metric)] for metric in (0.6, 0.62, 0.7, 0.9)],
        [BranchPoint(3, 0.6), BranchPoint(13, 0.52)],
        [BranchPoint(3, 0.62), BranchPoint(13, 0.5)],
    ]


def test_a_race_behind_a_warm_up_begins_where_that_ended():
    warm = row(1, [], phase="warmup", learning_rate=0.005, val_loss=2.0)
    _, one = decided(warm, raced(2), spec=RACE, warmup={"epochs": 1})
    assert one.candidates[0].curve == [BranchPoint(0, 2.0)]  # it diverged
    assert one.candidates[12].curve == [BranchPoint(0, 2.0), BranchPoint(3, 0.62), BranchPoint(13, 0.5)]


def test_a_finalist_that_came_to_nothing_leaves_the_other_one():
    branches = list(raced(chosen=0.1).branches)
    branches[11:] = [replace(branches[11], state="rolled_back"), replace(branches[12], state="chosen")]
    [one] = decided(row(1, branches, rollbacks=1, iterations=39 + 2 * 20), spec=RACE)
    assert one.rule == Rule(RatedRate(0.0316, 0.5), None, None, None, [], [])


def test_after_a_race_the_choice_stands():
    rows = [raced(), *(row(epoch, tried({0.0316: 0.3}, 0.0316)) for epoch in (2, 3))]
    *_, last = decided(*rows, spec=RACE)
    assert last.why == "the search ended after epoch 1; the learning rate follows its schedule (linear)"
    assert (last.is_choice, last.chosen_at, last.current_learning_rate) == (False, 1, 0.0316)
    assert [candidate.curve for candidate in last.candidates] == [
        [BranchPoint(0, 0.5), BranchPoint(4, 0.3), BranchPoint(20, 0.5)]
    ]


def test_a_training_too_short_for_a_race_says_so():
    for one in decided(row(1, tried({0.1: 0.3}, 0.1)), row(2, tried({0.1: 0.2}, 0.1)), spec=RACE):
        assert one.why == (
            "the search's share of the training is too short for a race: the initial learning rate was taken"
        )
        assert (one.is_choice, one.chosen_at) == (False, None)
    [one] = decided(row(1, tried({0.1: 0.3}, 0.1)), spec=RACE | {"budget": {"epochs": 8}})
    assert one.why == "the search's share of the budget is too short for a race: the initial learning rate was taken"


# --- what goes wrong -----------------------------------------------------------------------------------


def test_a_settled_learning_rate_that_diverged():
    halved = [branch(1, 0.1, None, "diverged"), branch(2, 0.05, 0.5, "chosen", retry=1)]
    *_, one, after = decided(
        row(1, tried(FIVE, 0.1)), row(2, halved, retries=1), row(3, [branch(1, 0.05, 0.4, "chosen")]), lr_set="narrow"
    )
    assert (one.is_choice, one.chosen_at) == (False, 1)
    assert one.why == "the training diverged or collapsed at 0.1: the epoch was tried again at smaller ones"
    assert (after.current_learning_rate, after.chosen_at) == (0.05, 1)


def test_a_loss_that_rises_is_told_at_each_epoch_from_the_third_on():
    rows = [row(1, tried(FIVE, 0.1), val_loss=0.4)]
    rows += [row(epoch, tried({0.1: 0.5}, 0.1), val_loss=0.4 + 0.05 * epoch) for epoch in (2, 3, 4, 5)]
    found = decided(*rows)
    assert [len(one.warnings) for one in found] == [0, 0, 0, 1, 1]
    assert found[3].warnings[0].message == (
        "the validation loss has risen for 3 epochs in a row, from 0.4 to 0.6; the last choice was made at epoch 1"
    )


def test_no_epochs_no_decisions():
    assert decided() == []


def test_a_scaled_job_begins_at_its_scaled_learning_rate():
    scaling = {"rule": "linear", "base_batch_size": 16}
    [one] = decided(row(1, tried({0.4: 0.5, 0.8: 0.6}, 0.4)), scaling=scaling)  # batch 64
    assert one.current_learning_rate == pytest.approx(0.4)
    assert [candidate.factor for candidate in one.candidates] == [1.0, 2.0]


def test_records_are_not_changed():
    before = row(1, tried(FIVE, 0.1))
    again = replace(before)
    decided(before)
    assert before == again
