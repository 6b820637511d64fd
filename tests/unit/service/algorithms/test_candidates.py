"""Every expected number is written out: from Yamada et al. (Tables 2 to 4) for the sets, by hand for the candidates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.candidates import LR_SETS, candidates, first_candidates, mix_phase, trials_of
from service.spec.job import JobSpec
from service.spec.lr_set import (
    NAMED_CANDIDATES,
    AbsoluteLrSet,
    HistoryLrSet,
    LrSetPhase,
    NamedLrSet,
    PhasedLrSet,
    Pretrains,
    RaceLrSet,
    RelativeLrSet,
    StagedLrSet,
)
from service.spec.methods.stpt import StptMethod
from service.spec.methods.sweep import SweepMethod
from service.spec.types import MIN_LEARNING_RATE
from tests.builders import nested
from tests.unit.service.specs import SIMPLE_LR_SETS
from tests.unit.service.specs import STAGES as STAGED

# Yamada et al., Table 2, and the columns (a), (b), (c) of Table 3
PAPER = {
    "paper-alpha": (10.0, 5.0, 3.0, 1.5, 1.0, 0.9, 0.5, 0.4),
    "narrow": (1.25, 1.17, 1.08, 1.00, 0.95, 0.90, 0.85, 0.80),
    "middle": (2.50, 2.00, 1.50, 1.00, 0.85, 0.70, 0.55, 0.40),
    "wide": (5.00, 3.67, 2.33, 1.00, 0.80, 0.60, 0.40, 0.20),
}
# the same sets from the paper's initial learning rate, 0.1, under its cap of 1.0
FROM_A_TENTH = {
    "paper-alpha": (1.0, 0.5, 0.3, 0.15, 0.1, 0.09, 0.05, 0.04),
    "narrow": (0.125, 0.117, 0.108, 0.1, 0.095, 0.09, 0.085, 0.08),
    "middle": (0.25, 0.2, 0.15, 0.1, 0.085, 0.07, 0.055, 0.04),
    "wide": (0.5, 0.367, 0.233, 0.1, 0.08, 0.06, 0.04, 0.02),
}


def at(lr_set, current=0.1, *, epoch=20, epochs=40):
    return candidates(lr_set, epoch=epoch, epochs=epochs, current=current)


def test_presets_are_the_tables_of_the_paper():
    assert LR_SETS == PAPER
    assert {len(factors) for factors in PAPER.values()} == {NAMED_CANDIDATES}


@pytest.mark.parametrize("name", PAPER)
def test_candidates_of_a_preset_from_the_initial_learning_rate(name):
    assert at(NamedLrSet(name=name)) == pytest.approx(FROM_A_TENTH[name], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper-alpha", (1.0, 0.75, 0.5, 0.45, 0.25, 0.2)),  # 5, 2.5 and 1.5 are above the cap: one branch
        ("narrow", (0.625, 0.585, 0.54, 0.5, 0.475, 0.45, 0.425, 0.4)),
        ("middle", (1.0, 0.75, 0.5, 0.425, 0.35, 0.275, 0.2)),
        ("wide", (1.0, 0.5, 0.4, 0.3, 0.2, 0.1)),
    ],
)
def test_candidates_above_the_cap_become_one(name, expected):
    assert at(NamedLrSet(name=name), 0.5) == pytest.approx(expected, rel=1e-12)


def test_the_cap_can_be_set():
    assert at(NamedLrSet(name="middle", max_learning_rate=0.12)) == pytest.approx(
        (0.12, 0.1, 0.085, 0.07, 0.055, 0.04), rel=1e-12
    )
    assert at(RelativeLrSet(factors=[4.0, 2.0, 1.0, 0.5], max_learning_rate=3.0), 1.0) == (3.0, 2.0, 1.0, 0.5)


def test_without_a_word_about_the_cap_it_is_the_papers():
    assert RelativeLrSet(factors=[1.0]).max_learning_rate == 1.0
    assert NamedLrSet(name="wide").max_learning_rate == 1.0


def test_a_learning_rate_above_the_cap_comes_down_to_it():
    assert at(RelativeLrSet(factors=[2.0, 1.0, 0.5]), 8.0) == (1.0,)


def test_a_learning_rate_never_falls_to_zero():
    current = 0.1
    for _ in range(2000):
        current = at(NamedLrSet(name="wide"), current)[-1]
    assert current == MIN_LEARNING_RATE == 1e-12


def test_an_absolute_set_is_the_values_themselves():
    lr_set = AbsoluteLrSet(learning_rates=[0.01, 3.0, 0.5, 0.01])
    assert at(lr_set, 0.1, epoch=1) == at(lr_set, 7.0, epoch=40) == (0.01, 3.0, 0.5)  # order kept, no cap, no repeat


def test_a_schedule_changes_sets_at_the_first_epoch_of_each_phase():
    schedule = PhasedLrSet(
        phases=[
            LrSetPhase(first_epoch=2, lr_set=RelativeLrSet(factors=[2.0, 1.0])),
            LrSetPhase(first_epoch=5, lr_set=AbsoluteLrSet(learning_rates=[0.3])),
            LrSetPhase(first_epoch=6, lr_set=NamedLrSet(name="wide")),
        ]
    )
    seen = {epoch: at(schedule, 0.1, epoch=epoch, epochs=8) for epoch in range(2, 9)}
    assert seen == {
        **dict.fromkeys((2, 3, 4), (0.2, 0.1)),
        5: (0.3,),
        **dict.fromkeys((6, 7, 8), pytest.approx(FROM_A_TENTH["wide"])),
    }


def test_table_4_written_as_a_schedule_is_the_mix():
    table_4 = PhasedLrSet(
        phases=[
            LrSetPhase(first_epoch=5, lr_set=NamedLrSet(name="narrow")),
            LrSetPhase(first_epoch=20, lr_set=NamedLrSet(name="middle")),
            LrSetPhase(first_epoch=30, lr_set=NamedLrSet(name="wide")),
        ]
    )
    for epoch in range(5, 41):
        assert at(table_4, epoch=epoch) == at(NamedLrSet(name="mix"), epoch=epoch)


# first epoch of middle, first epoch of wide (Yamada et al., Table 4, at 40; its boundaries in proportion elsewhere)
@pytest.mark.parametrize(
    ("epochs", "middle", "wide"), [(40, 20, 30), (10, 6, 8), (20, 11, 16), (80, 39, 59), (100, 49, 74), (4, 3, 4)]
)
def test_mix_at_every_epoch(epochs, middle, wide):
    for epoch in range(1, epochs + 1):
        name = "narrow" if epoch < middle else "middle" if epoch < wide else "wide"
        assert mix_phase(epoch, epochs) == name, epoch
        assert at(NamedLrSet(name="mix"), epoch=epoch, epochs=epochs) == pytest.approx(FROM_A_TENTH[name]), epoch


def test_mix_in_the_papers_forty_epochs():
    phases = [mix_phase(epoch, 40) for epoch in range(5, 41)]
    assert phases == ["narrow"] * 15 + ["middle"] * 10 + ["wide"] * 11  # 5-19, 20-29, 30-40


def test_mix_is_capped_too():
    assert max(at(NamedLrSet(name="mix"), 0.9, epoch=40)) == 1.0
    assert at(NamedLrSet(name="mix", max_learning_rate=0.1), 0.1, epoch=40) == pytest.approx(
        (0.1, 0.08, 0.06, 0.04, 0.02)
    )


def test_mix_of_a_single_epoch_is_its_middle():
    assert mix_phase(1, 1) == "middle"


@given(epochs=st.integers(2, 100_000), data=st.data())
def test_mix_has_a_set_for_every_epoch_and_never_goes_back(epochs, data):
    order = ["narrow", "middle", "wide"]
    early = data.draw(st.integers(1, epochs))
    late = data.draw(st.integers(early, epochs))
    assert order.index(mix_phase(early, epochs)) <= order.index(mix_phase(late, epochs))
    assert mix_phase(epochs, epochs) == "wide"


POSITIVE = st.floats(0, 1e6, exclude_min=True)
FACTORS = st.lists(POSITIVE, min_size=1, max_size=64)


@given(factors=FACTORS, current=POSITIVE, cap=POSITIVE)
def test_relative_candidates_are_positive_below_the_cap_and_distinct(factors, current, cap):
    found = at(RelativeLrSet(factors=factors, max_learning_rate=cap), current)
    assert 1 <= len(found) <= len(factors)
    assert all(0 < value <= cap for value in found)
    assert len(set(found)) == len(found)


@given(factors=FACTORS, current=st.floats(1e-5, 10), cap=st.floats(1e-3, 10))
def test_relative_candidates_keep_the_order_of_the_factors(factors, current, cap):
    found = at(RelativeLrSet(factors=sorted(factors, reverse=True), max_learning_rate=cap), current)
    assert list(found) == sorted(found, reverse=True)
    found = at(RelativeLrSet(factors=sorted(factors), max_learning_rate=cap), current)
    assert list(found) == sorted(found)


@given(values=st.lists(POSITIVE, min_size=1, max_size=64))
def test_absolute_candidates_are_the_first_of_each_value_in_order(values):
    expected = [value for i, value in enumerate(values) if value not in values[:i]]
    assert list(at(AbsoluteLrSet(learning_rates=values))) == expected


STAGES = [{"factors": [2, 1, 1], "pretrain_share": 0.5}, {"factors": [2, 1, 0.5]}]

# --- stages ------------------------------------------------------------------------------------------


def test_a_set_of_the_history_is_one_stage_until_the_job_is_accepted():
    lr_set = HistoryLrSet(from_history=True)
    assert candidates(lr_set, epoch=3, epochs=5, current=0.2, warmup_epochs=2) == (0.4, 0.2, 0.1)
    assert candidates(lr_set, epoch=4, epochs=5, current=0.4, warmup_epochs=2) == (0.4,)


def test_a_stage_an_epoch_and_then_the_learning_rate_stays():
    stages = StagedLrSet(stages=[{"factors": [10.0, 1.0]}, {"factors": [2.0, 1.0, 0.5]}], max_learning_rate=0.5)
    found = [candidates(stages, epoch=epoch, epochs=9, current=0.1, warmup_epochs=2) for epoch in (3, 4, 5, 9)]
    assert found == [(0.5, 0.1), (0.2, 0.1, 0.05), (0.1,), (0.1,)]


# --- what is planned ---------------------------------------------------------------------------------

PHASES = PhasedLrSet(
    phases=[
        LrSetPhase(first_epoch=1, lr_set=RelativeLrSet(factors=[2, 1, 1])),
        LrSetPhase(first_epoch=4, lr_set=AbsoluteLrSet(learning_rates=[0.1])),
        LrSetPhase(first_epoch=6, lr_set=NamedLrSet(name="mix")),
    ]
)


@pytest.mark.parametrize(
    ("lr_set", "first", "last", "planned"),
    [
        (RelativeLrSet(factors=[2, 1, 0.5, 1]), 3, 10, [Pretrains(8, 3)]),
        (RelativeLrSet(factors=[2, 1, 0.5, 1]), 4, 2, [Pretrains(0, 3)]),  # all is warm-up
        (AbsoluteLrSet(learning_rates=[0.2, 0.1]), 1, 1, [Pretrains(1, 2)]),
        (NamedLrSet(name="mix"), 1, 40, [Pretrains(40, 8)]),
        (PHASES, 1, 9, [Pretrains(3, 2), Pretrains(2, 1), Pretrains(4, 8)]),
        (PHASES, 5, 9, [Pretrains(0, 2), Pretrains(1, 1), Pretrains(4, 8)]),
        (PHASES, 2, 4, [Pretrains(2, 2), Pretrains(1, 1), Pretrains(0, 8)]),
        (PHASES, 3, 2, [Pretrains(0, 2), Pretrains(0, 1), Pretrains(0, 8)]),
        (StagedLrSet(stages=STAGES), 3, 9, [Pretrains(1, 2, 0.5), Pretrains(1, 3)]),
        (StagedLrSet(stages=STAGES), 3, 3, [Pretrains(1, 2, 0.5)]),
        (StagedLrSet(stages=STAGES), 4, 2, []),
        (RaceLrSet(), 1, 9, []),
        (HistoryLrSet(from_history=True), 1, 9, [Pretrains(1, 3, 1.0)]),
    ],
)
def test_the_pretrains_that_are_planned(lr_set, first, last, planned):
    assert lr_set.pretrains(first, last) == planned


@given(
    lr_set=SIMPLE_LR_SETS | STAGED | st.just(PHASES) | st.just(HistoryLrSet(from_history=True)),
    current=POSITIVE,
    warmup=st.integers(0, 3),
)
def test_no_epoch_has_more_candidates_than_are_planned(lr_set, current, warmup):
    planned = [alike.candidates for alike in lr_set.pretrains(warmup + 1, 9) for _ in range(alike.epochs)]
    planned += [1] * (9 - warmup - len(planned))
    for epoch, most in enumerate(planned, start=warmup + 1):
        assert len(candidates(lr_set, epoch=epoch, epochs=9, current=current, warmup_epochs=warmup)) <= most


# --- the trials of a sweep ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr_set", "sweep", "rates"),
    [
        ("middle", {}, FROM_A_TENTH["middle"]),
        ("mix", {}, FROM_A_TENTH["narrow"]),  # what the first Pre-train would try
        ({"phases": [{"first_epoch": 2, "lr_set": "wide"}]}, {}, FROM_A_TENTH["wide"]),
        ("middle", {"learning_rates": [0.3, 0.1, 0.3]}, (0.3, 0.1)),
    ],
)
def test_the_learning_rates_of_a_sweep(lr_set, sweep, rates):
    document = {"model": "lenet5", "dataset": "digits", "epochs": 9, "warmup": {"epochs": 1}, "lr_set": lr_set}
    document = nested(**document)
    spec = JobSpec.model_validate(document)
    method = SweepMethod(**sweep)
    assert method.rates(first_candidates(spec)) == pytest.approx(rates, rel=1e-12)
    assert trials_of(spec, method) == len(rates)
    assert trials_of(spec, StptMethod()) == 1


def test_a_sweep_of_a_job_that_is_all_warm_up():
    document = {"model": "lenet5", "dataset": "digits", "epochs": 2, "warmup": {"epochs": 2}, "lr_set": "mix"}
    assert trials_of(JobSpec.model_validate(nested(**document)), SweepMethod()) == 8


def test_a_sweep_without_stpt_goes_over_the_first_phase_whenever_it_begins():
    phases = [{"first_epoch": 3, "lr_set": "wide"}, {"first_epoch": 5, "lr_set": "narrow"}]
    document = {"model": "lenet5", "dataset": "digits", "epochs": 9, "lr_set": {"phases": phases}, "methods": ["sweep"]}
    spec = JobSpec.model_validate(document)
    assert first_candidates(spec) == pytest.approx(FROM_A_TENTH["wide"], rel=1e-12)
