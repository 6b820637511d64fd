"""What short-term pre-training comes to in a job: shares of a budget, epochs, work. Digits: 20 iterations of 64 an
epoch."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.spec.job import JobSpec
from service.spec.lr_set import LrSet, LrSetPhase, PhasedLrSet
from service.spec.methods.base import Facts, Schedule, Work
from service.spec.methods.stpt import EpochPlan, StptMethod
from service.spec.race import RacePlan, Shares
from service.validation.door import parse_spec
from tests.unit.service.specs import SIMPLE_LR_SETS, STAGES, small

EPOCH = 20 * 64
RACE = {"kind": "race"}
PHASES = st.builds(
    lambda sets: PhasedLrSet(phases=[LrSetPhase(first_epoch=1 + 3 * n, lr_set=one) for n, one in enumerate(sets)]),
    st.lists(SIMPLE_LR_SETS, min_size=1, max_size=4),
)
LR_SETS = SIMPLE_LR_SETS | STAGES | PHASES


def stpt_in(**changes: Any) -> tuple[StptMethod, JobSpec]:
    """The first stpt of a job of 10 epochs that races, and the job's spec."""
    spec = JobSpec.model_validate(small(**{"lr_set": RACE} | changes))
    return spec.methods_of(StptMethod)[0], spec


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({"budget": {"epochs": 15}}, True),
        ({"budget": {"samples": 20_000}}, True),
        ({}, False),
        ({"budget": {"epochs": 15}, "lr_set": "middle"}, True),
        ({"budget": {"epochs": 15}, "lr_set": {"stages": [{"factors": [2, 1]}]}}, True),
        ({"lr_set": "middle"}, False),
        ({"budget": {"epochs": 15}, "lr_set": "middle", "methods": [{"name": "stpt", "lr_set": RACE}]}, True),
        ({"budget": {"epochs": 15}, "methods": [{"name": "stpt", "lr_set": "middle"}]}, True),
        ({"budget": {"relative_to": "stpt"}, "lr_set": "middle"}, False),
        ({"budget": {"relative_to": "stpt"}}, False),  # it is what sets it
        ({"budget": {"relative_to": "b"}, "methods": ["stpt", {"name": "stpt", "label": "b"}]}, True),
    ],
)
def test_a_budget_holds_for_every_run_that_does_not_set_it(changes: dict[str, Any], holds: bool) -> None:
    method, spec = stpt_in(**changes)
    assert method.holds_budget(spec) is holds


def test_without_a_budget_the_race_comes_on_top_of_the_training() -> None:
    method, spec = stpt_in()
    race = RacePlan(first_looks=5, wide=1, middle=3, final=18)  # 7 + 4 x 3 + 2 x 15 = 49 of a quarter of 200
    assert method.shares(spec, EPOCH, None) == Shares(race, epochs=10, iterations=20)
    assert method.training_shares(spec, EPOCH) == Shares(race, epochs=10, iterations=20)
    assert method.training_epochs(spec, EPOCH, None) == 10
    assert method.work(spec, Facts([], EPOCH, None)) == Work(1, (49 + 200) * 64)


def test_within_a_budget_the_training_is_what_the_race_leaves() -> None:
    """300 iterations: 7 + 4 x 3 + 2 x 13 = 45 of race, 13 epochs of 19 of the other 255."""
    method, spec = stpt_in(budget={"samples": 300 * 64 + 63})
    shares = Shares(RacePlan(first_looks=5, wide=1, middle=3, final=16), epochs=13, iterations=19)
    assert method.shares(spec, EPOCH, 300 * 64) == shares
    assert method.training_shares(spec, EPOCH) == shares
    assert method.training_epochs(spec, EPOCH, 300 * 64) == 13
    assert method.training_plan(spec, EPOCH, shares) == EpochPlan(2, 17)
    assert method.work(spec, Facts([], EPOCH, 300 * 64)) == Work(1, (45 + 13 * 19) * 64)


def test_a_budget_that_is_not_its_own_changes_nothing() -> None:
    method, spec = stpt_in(budget={"relative_to": "stpt", "times": 2.0})
    assert method.training_shares(spec, EPOCH).epochs == 10
    assert method.work(spec, Facts([], EPOCH, 300 * 64)) == Work(1, 249 * 64)


def test_the_share_of_the_search_is_asked_for() -> None:
    method, spec = stpt_in(lr_set={"search_share": 0.3})
    race = RacePlan(first_looks=5, wide=2, middle=6, final=17)  # 7 x 2 + 4 x 6 + 2 x 11 = 60 of 200
    assert method.shares(spec, EPOCH, None) == Shares(race, epochs=10, iterations=20)


def test_factors_that_stand_there_twice_are_one_look() -> None:
    method, spec = stpt_in(lr_set={"kind": "race", "factors": [1, 1, 1]})
    assert method.shares(spec, EPOCH, None).race == RacePlan(first_looks=1, wide=1, middle=3, final=20)


def test_candidates_that_are_equal_after_the_cap_are_one_look() -> None:
    """10 and 3 times 0.1 are both 0.3; 50 iterations are 6 x 1 + 4 x 3 + 2 x 16. Scaled to a batch of 64, all are."""
    capped = RACE | {"max_learning_rate": 0.3}
    method, spec = stpt_in(lr_set=capped)
    assert method.shares(spec, EPOCH, None).race == RacePlan(first_looks=4, wide=1, middle=3, final=19)
    scaling = {"rule": "linear", "base_batch_size": 1}  # 6.4
    method, spec = stpt_in(lr_set=capped, methods=[{"name": "stpt", "scaling": scaling}])
    assert method.shares(spec, EPOCH, None).race == RacePlan(first_looks=1, wide=1, middle=3, final=20)


def test_an_epoch_that_main_train_cuts_short_is_one_all_the_same() -> None:
    method, spec = stpt_in(main_train={"iterations": 10}, budget={"epochs": 6})
    # 120 iterations: 7 + 4 x 2 + 2 x 1 = 17 of 18 are the race; of the other 103 9 epochs of 11, for 8 of 12 are fewer
    assert method.shares(spec, EPOCH, 120 * 64) == Shares(RacePlan(5, wide=1, middle=2, final=3), 9, 11)


def test_a_budget_too_small_for_a_race_is_all_training() -> None:
    method, spec = stpt_in(budget={"epochs": 4})
    assert method.shares(spec, EPOCH, 80 * 64) == Shares(None, epochs=4, iterations=20)  # 12 are 15 %
    assert parse_spec(spec.model_dump_json().encode()) == spec


def test_without_a_race_the_training_is_as_long_as_its_pretrains_let_it() -> None:
    """With 8 candidates of 2 iterations an epoch of 20 takes 34, one of 19 takes 33."""
    method, spec = stpt_in(lr_set="middle", budget={"samples": 373 * 64})
    shares = Shares(None, epochs=11, iterations=19)
    assert method.shares(spec, EPOCH, 372 * 64) == shares
    assert method.training_shares(spec, EPOCH) == shares
    assert method.training_epochs(spec, EPOCH, 373 * 64) == 11
    assert method.training_plan(spec, EPOCH, shares) == EpochPlan(2, 17)
    assert method.work(spec, Facts([], EPOCH, 373 * 64)) == Work(1, 11 * 33 * 64)
    assert method.shares(spec, EPOCH, 362 * 64) == Shares(None, epochs=10, iterations=20)
    assert method.shares(spec, EPOCH, None) == Shares(None, epochs=10, iterations=20)


@pytest.mark.parametrize(("budget", "length"), [(34, 20), (33, 19), (16, 2), (15, 1), (8, 1), (1, 1)])
def test_what_is_too_small_for_an_epoch_is_a_shorter_one(budget: int, length: int) -> None:
    """What another run has taken may be as little; alpha is then no more than the epoch."""
    method, spec = stpt_in(lr_set="middle")
    shares = method.shares(spec, EPOCH, budget * 64)
    assert shares == Shares(None, epochs=1, iterations=length)
    assert method.training_samples(spec, EPOCH, shares) == (length + 7 * min(2, length)) * 64


@pytest.mark.parametrize("lr_set", [RACE, "middle"])
def test_no_training_is_longer_than_a_job_may_be(lr_set: Any) -> None:
    method, spec = stpt_in(lr_set=lr_set)
    assert 99_999 <= method.shares(spec, EPOCH, 10**12).epochs <= 100_000


@given(
    lr_set=LR_SETS,
    warmup=st.none() | st.integers(0, 5),
    alpha=st.none() | st.integers(1, 20),
    batch=st.sampled_from(["global", "per_worker"]),
    workers=st.sampled_from([1, 2, 4, 16]),
    budget=st.integers(1, 100_000),
)
def test_no_budget_is_exceeded_nor_has_it_room_for_more(
    lr_set: LrSet, warmup: int | None, alpha: int | None, batch: str, workers: int, budget: int
) -> None:
    settings = {"warmup": {"epochs": warmup}, "pretrain": {"iterations": alpha, "batch": batch}}
    method, spec = stpt_in(lr_set=lr_set.model_dump(), workers=workers, **settings)
    shares = method.shares(spec, EPOCH, budget)
    if (shares.epochs, shares.iterations) != (1, 1):
        assert method.training_samples(spec, EPOCH, shares) <= budget
    longer = {"epochs": shares.epochs + 1} if shares.iterations == 20 else {"iterations": shares.iterations + 1}
    assert method.training_samples(spec, EPOCH, replace(shares, **longer)) > budget


def test_within_a_budget_stages_try_no_more_than_they_say() -> None:
    stages = {"stages": [{"factors": [2, 1]}], "max_extensions": 3}
    for changes, extensions in (({}, 3), ({"budget": {"epochs": 9}}, 0), ({"budget": {"relative_to": "stpt"}}, 3)):
        method, spec = stpt_in(lr_set=stages, **changes)
        assert method.most_extensions(spec) == extensions
    method, spec = stpt_in(lr_set="middle")
    assert method.most_extensions(spec) == 0


@pytest.mark.parametrize("placement", ["split", "sequential"])
def test_looks_take_the_global_batch(placement: str) -> None:
    changes = {"workers": 2, "pretrain": {"placement": placement, "batch": "per_worker"}, "lr_set": RACE}
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(**changes)).encode())
    [error] = caught.value.errors
    assert (error.field, error.value) == ("methods[0].pretrain.batch", "per_worker")
    assert error.message == "the looks of a race take the global batch; use 'global', or another lr_set"


def test_the_schedule_of_a_race_warms_up() -> None:
    method, spec = stpt_in(warmup={"epochs": 1})
    assert method.schedule_of([0.005, 0.2], spec, {}) == Schedule(
        learning_rates=[0.005, 0.2], lr_schedule="linear", warmup_epochs=1, warmup_share=0.2
    )
    method, spec = stpt_in(lr_set={"warmup_share": 0.25})
    assert method.schedule_of([0.2], spec, {}).warmup_share == 0.25
    method, spec = stpt_in(lr_set="middle")
    assert method.schedule_of([0.2], spec, {}).warmup_share == 0.0


def test_the_iterations_that_made_the_model() -> None:
    """Looks of 7 x 1, 4 x 3 and 2 x 10 iterations, and 20 of the epoch, once or, undone, twice; then 2 + 18."""
    looks = [1] * 7 + [3] * 4 + [10] * 2
    method, spec = stpt_in()
    assert method.trained_iterations(spec, 1, 39 + 20, looks, 0) == 20
    assert method.trained_iterations(spec, 1, 39 + 40, looks, 1) == 20
    assert method.trained_iterations(spec, 2, 2 + 18, [2], 0) == 20
    assert method.trained_iterations(spec, 2, 2 + 2 + 18, [2, 2], 0) == 20  # tried again at a half
    assert method.trained_iterations(spec, 1, 2 + 18, [2], 0) == 20  # no room for a race
    method, spec = stpt_in(warmup={"epochs": 1})
    assert method.trained_iterations(spec, 1, 20, [], 0) == 20
    assert method.trained_iterations(spec, 2, 39 + 20, looks, 0) == 20
    method, spec = stpt_in(lr_set="middle")
    assert method.trained_iterations(spec, 1, 5 * 2 + 18, [2] * 5, 0) == 20


def test_a_race_is_settled_at_its_epoch() -> None:
    method, spec = stpt_in()
    assert method.settled_epoch(spec) == 1
    method, spec = stpt_in(warmup={"epochs": 2})
    assert method.settled_epoch(spec) == 3
