"""What searches try; expected numbers by hand."""

import json
import math
import time
import tracemalloc
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.algorithms.search_space import (
    budget_samples,
    known_points,
    most_trials,
    search_space,
)
from service.errors import FieldError, InvalidInput
from service.spec.job import JobSpec
from service.spec.methods.base import Facts
from service.spec.methods.cosine import CosineMethod
from service.spec.methods.search import Distribution, SearchMethod, combinations, grid
from service.validation.door import parse_spec
from tests.unit.service.specs import small


def spec(*methods, **changes) -> JobSpec:
    return JobSpec.model_validate(small(**{"methods": list(methods) or ["random"], **changes}))


def search(job: JobSpec) -> SearchMethod:
    [method] = job.methods
    assert isinstance(method, SearchMethod)
    return method


# --- the space -----------------------------------------------------------------------------------------


def test_by_default_what_the_first_pre_train_tries():
    job = spec(initial_learning_rate=0.2, lr_set={"factors": [2, 1, 0.1]})
    assert search_space(job, search(job)) == {"learning_rate": Distribution(loguniform=[0.2 * 0.1, 0.4])}


def test_a_single_candidate_gives_a_decade_each_way():
    job = spec(lr_set={"learning_rates": [0.05]})
    assert search_space(job, search(job)) == {"learning_rate": Distribution(loguniform=[0.005, 0.5])}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"uniform": [0, 1], "choice": [1]},
        {"uniform": [1, 1]},
        {"uniform": [0.2, 0.1]},
        {"loguniform": [0, 1]},
        {"lograndint": [0, 4]},
        {"randint": [1.5, 4]},
        {"choice": []},
        {"uniform": [0.1]},
    ],
)
def test_no_distribution(wrong):
    with pytest.raises(ValidationError):
        Distribution.model_validate(wrong)


@pytest.mark.parametrize(
    ("space", "field", "message"),
    [
        ({"dropout": {"uniform": [0, 1]}}, "dropout", "cannot be searched"),
        ({"learning_rate.x": {"uniform": [0.1, 1]}}, "learning_rate.x", "cannot be searched"),
        ({"learning_rate": {"uniform": [-0.1, 1]}}, "learning_rate", "greater than 0"),
        ({"optimizer.momentum": {"uniform": [0.5, 1.0]}}, "optimizer.momentum", "less than 1"),
        ({"optimizer": {"choice": ["sgd", "adamm"]}}, "optimizer", "adamm"),
        ({"global_batch_size": {"randint": [32, 64]}}, "global_batch_size", "must be a choice"),
        ({"global_batch_size": {"choice": [64, 63]}}, "global_batch_size", "multiple of workers (2)"),
        ({"global_batch_size": {"choice": [2048]}}, "global_batch_size", "less than one batch"),
    ],
)
def test_every_value_at_the_ends_of_a_space_must_make_a_spec(space, field, message):
    document = small(workers=2, methods=[{"name": "tpe", "search_space": space}])
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(document).encode())
    [error] = caught.value.errors
    assert isinstance(error, FieldError)
    assert error.field == f"methods[0].search_space.{field}"
    assert message in error.message


def test_a_trials_hyperparameters_stand_in_its_spec():
    method = {"name": "tpe", "lr_schedule": "cosine"}
    job = spec(
        method, optimizer={"name": "sgd", "momentum": 0.5, "weight_decay": 1e-4}, seeds=3, epochs=8, telemetry={}
    )
    config = {"optimizer.momentum": 0.8, "learning_rate": 0.03, "global_batch_size": 32}
    trial = search(job).trial_spec(job, config, seed=11, epochs=5)
    assert (trial.initial_learning_rate, trial.global_batch_size, trial.seed, trial.epochs) == (0.03, 32, 11, 5)
    assert trial.optimizer.model_dump() == {"name": "sgd", "momentum": 0.8, "nesterov": False, "weight_decay": 1e-4}
    assert (trial.lr_schedule, trial.seeds, trial.budget, trial.telemetry) == ("cosine", 1, None, None)
    other = search(job).trial_spec(job, {"optimizer.weight_decay": 0.1, "optimizer": "adamw"}, seed=0, epochs=5)
    assert (other.optimizer.name, other.optimizer.weight_decay) == ("adamw", 0.1)


# --- trials and budgets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "budget", "trials", "epochs"),
    [
        ("random", None, 4, 10),
        ("random", 1700, 17, 10),  # each may be stopped after an epoch
        ({"name": "random", "max_trials": 3}, 1700, 3, 10),
        ("grid", None, 4, 10),
        ("grid", 1700, 1, 10),
        ("grid", 900, 1, 10),
        ("grid", 3999, 3, 10),
        ({"name": "pbt", "population": 5}, None, 5, 10),
        ({"name": "pbt", "population": 5}, 1700, 5, 3),
        ({"name": "pbt", "population": 5}, 300, 5, 1),
        ({"name": "pb2", "population": 5}, None, 5, 10),
        ({"name": "pb2", "population": 5}, 1700, 5, 3),
        ("hyperband", 1700, 17, 10),
    ],
)
def test_trials_and_epochs(method, budget, trials, epochs):
    job = spec(method, epochs=10, lr_set={"learning_rates": [0.1, 0.05, 0.02, 0.01]})
    assert most_trials(job, search(job), 100, budget) == trials
    assert search(job).training_epochs(job, 100, budget) == epochs


@pytest.mark.parametrize(
    ("budget", "samples"),
    [({"samples": 1234}, 1234), ({"epochs": 2.5}, 250), ({"relative_to": "stpt", "times": 1.5}, 600), (None, None)],
)
def test_budgets(budget, samples):
    job = spec("stpt", "random", budget=budget)
    assert budget_samples(job, 100, 400) == samples


@pytest.mark.parametrize(
    ("budget", "field", "message"),
    [
        ({"samples": 1279}, "budget.samples", "less than an epoch, which takes 1280 samples; give that at least"),
        ({"epochs": 0.9}, "budget.epochs", "less than an epoch; give 1 at least"),
    ],
)
def test_a_budget_below_an_epoch_is_refused(budget, field, message):
    """1293 samples of digits: 20 iterations of 64."""
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=["random"], budget=budget)).encode())
    assert caught.value.errors == (FieldError(field, next(iter(budget.values())), message),)


@pytest.mark.parametrize("budget", [{"samples": 1280}, {"epochs": 1}, {"relative_to": "stpt", "times": 0.01}])
def test_a_budget_of_an_epoch_is_accepted(budget):
    document = small(lr_set={"kind": "race"}, methods=["stpt", "random"], budget=budget)
    assert parse_spec(json.dumps(document).encode()).budget is not None


MIDDLE = "less than the search of stpt (896 samples) and an epoch (1280); give {} at least, or let it search less"


@pytest.mark.parametrize(
    ("changes", "budget", "message"),
    [
        ({}, {"samples": 2175}, MIDDLE.format(2176)),  # 7 branches more of 2 iterations of 64
        ({}, {"epochs": 1.5}, MIDDLE.format(2)),
        ({"warmup": {"epochs": 1}}, {"samples": 2175}, MIDDLE.format(2176)),
        (
            {"warmup": {"epochs": 2}},
            {"epochs": 2},
            "has room for 2 epochs of stpt, all of them warm-up; give more, or shorten its warm-up",
        ),
        (
            {"warmup": {"epochs": 1}, "lr_set": {"kind": "race"}},
            {"epochs": 1},
            "has room for 1 epoch of stpt, all of them warm-up; give more, or shorten its warm-up",
        ),
    ],
)
def test_a_budget_below_an_epoch_with_its_search_is_refused(changes, budget, message):
    """Digits: an epoch of 20 iterations is 1280 samples; `middle` has 8 candidates, alpha is 2."""
    [(field, value)] = budget.items()
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(**changes, budget=budget)).encode())
    assert caught.value.errors == (FieldError(f"budget.{field}", value, message),)


@pytest.mark.parametrize("changes", [{}, {"lr_set": {"factors": [1.0]}}, {"warmup": {"epochs": None}}])
def test_a_budget_of_an_epoch_with_its_search_is_accepted(changes):
    assert parse_spec(json.dumps(small(**changes, budget={"samples": 2176})).encode()).budget is not None


@pytest.mark.parametrize(("budget", "epochs"), [(None, 10), (1700, 17), (1799, 17), (99, 1)])
def test_what_takes_the_whole_budget(budget, epochs):
    assert CosineMethod().training_epochs(spec("cosine", epochs=10), 100, budget) == epochs


# --- grids ---------------------------------------------------------------------------------------------


def test_a_grid_without_a_space_and_a_budget_is_the_papers_sweep():
    job = spec("grid", lr_set="middle", initial_learning_rate=0.1)
    rates = [point["learning_rate"] for point in known_points(job, search(job), 100, None)]
    assert rates == pytest.approx([0.25, 0.2, 0.15, 0.1, 0.085, 0.07, 0.055, 0.04])


def test_points_lie_in_the_middles_of_equal_parts():
    method = {"name": "grid", "search_space": {"learning_rate": {"loguniform": [1e-4, 1.0]}}}
    job = spec(method)
    rates = [point["learning_rate"] for point in known_points(job, search(job), 1, 4 * job.epochs)]
    assert rates == pytest.approx([10**-3.5, 10**-2.5, 10**-1.5, 10**-0.5])


def test_a_grid_of_choices_and_ranges():
    space = {"optimizer": {"choice": ["sgd", "adam"]}, "optimizer.weight_decay": {"uniform": [0, 0.4]}}
    job = spec({"name": "grid", "search_space": space})
    points = known_points(job, search(job), 1, 5 * job.epochs)
    assert [(p["optimizer"], round(p["optimizer.weight_decay"], 9)) for p in points] == [
        ("sgd", 0.1), ("sgd", 0.3), ("adam", 0.1), ("adam", 0.3),
    ]  # fmt: skip


def test_a_grid_of_whole_numbers_has_those_that_its_parts_round_to():
    """Nine parts of 1 to 10 in the logarithm: 1.1, 1.4, 1.8, 2.4, 3, 3.8, 4.9, 6.2, 8.0; 10 is not one."""
    space = {"optimizer.delay_epochs": {"lograndint": [1, 10]}}
    job = spec({"name": "grid", "search_space": space, "max_trials": 9}, optimizer="tvlars")
    points = known_points(job, search(job), 100, None)
    assert [point["optimizer.delay_epochs"] for point in points] == [1, 2, 3, 4, 5, 6, 8]
    assert most_trials(job, search(job), 100, None) == 7


@given(st.integers(1, 200), st.integers(1, 3), st.integers(1, 4))
def test_a_grid_has_no_more_points_than_it_may_have(trials, ranges, choices):
    space = {key: {"uniform": [0.1, 0.2]} for key in ("learning_rate", "optimizer.momentum", "optimizer.weight_decay")}
    space = dict(list(space.items())[:ranges]) | {"lr_schedule": {"choice": ["linear"] * choices}}
    job = spec({"name": "grid", "search_space": space})
    points = list(search(job).points(job, Facts((0.1,), 1, trials * job.epochs)))
    assert len(points) <= max(trials, choices)
    assert len(points) == choices * round((len(points) / choices) ** (1 / ranges)) ** ranges
    assert math.isfinite(sum(point["learning_rate"] for point in points))
    known = known_points(job, search(job), 1, trials * job.epochs)  # those that may begin
    assert known == points[:trials]


RANGES = st.sampled_from(
    [{"uniform": [0.0, 1.0]}, {"loguniform": [1e-3, 1.0]}, {"randint": [1, 9]}, {"lograndint": [1, 100]}]
)
CHOICES = st.lists(st.integers(), min_size=1, max_size=5).map(lambda values: {"choice": values})
SPACES = st.dictionaries(st.sampled_from("abcd"), st.one_of(RANGES, CHOICES).map(Distribution.model_validate))


@given(SPACES, st.integers(0, 300))
def test_points_are_counted_as_they_are_made(space, trials):
    points = grid(space, trials)
    made = list(points)
    assert points.size == len(made)
    assert list(points) == made  # once more
    assert made[0] == {key: axis[0] for key, axis in points.axes.items()}
    assert made[-1] == {key: axis[-1] for key, axis in points.axes.items()}
    assert points.size <= max(trials, combinations(space))
    assert all(list(point) == list(space) for point in made)


def test_the_points_of_a_grid_are_made_as_they_are_asked_for():
    space = {f"key-{number}": Distribution(choice=list(range(64))) for number in range(16)}
    tracemalloc.start()
    try:
        points = grid(space, 10)
        assert points.size == 64**16
        first, second = islice(points, 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert first == dict.fromkeys(space, 0)
    assert second == first | {"key-15": 1}
    assert peak < 200_000


@pytest.mark.parametrize(("budget", "steps"), [(10**15, 10_000), (3 * 10, 3), (1, 1)])
def test_a_range_is_divided_no_more_often_than_a_grid_may_have_points(budget, steps):
    job = spec({"name": "grid", "search_space": {"learning_rate": {"loguniform": [1e-4, 1.0]}}}, epochs=10)
    assert most_trials(job, search(job), 1, budget) == steps


FOUR_KEYS = {  # 2.4 kB that took 31 s and 3.3 GB
    key: {"choice": [round(0.001 * place, 3) for place in range(1, 65)]}
    for key in ("learning_rate", "optimizer.momentum", "optimizer.weight_decay", "optimizer.eps")
}


@pytest.mark.parametrize(
    ("method", "count", "message"),
    [
        ({"search_space": FOUR_KEYS}, 64**4, "more than a grid may have (10000); list fewer values, or use random"),
        ({"search_space": FOUR_KEYS, "max_trials": 100}, 64**4, "more than max_trials (100); list fewer values"),
        (
            {"search_space": dict(list(FOUR_KEYS.items())[:2]), "max_trials": 4095},
            4096,
            "its choices have 4096 combinations, more than max_trials (4095); raise max_trials to 4096, list fewer "
            "values, or use random",
        ),
    ],
)
def test_combinations_beyond_the_limit_are_refused_before_any_is_made(method, count, message):
    raw = json.dumps(small(methods=[{"name": "grid", **method}])).encode()
    parse_spec(json.dumps(small()).encode())  # what is only imported once
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(InvalidInput) as caught:
            parse_spec(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    [error] = caught.value.errors
    assert (error.field, error.value) == ("methods[0].search_space", count)
    assert message in error.message
    assert time.process_time() - begun < 0.2
    assert peak < 2_000_000


def test_as_many_combinations_as_trials_are_accepted():
    space = dict(list(FOUR_KEYS.items())[:2])
    job = parse_spec(json.dumps(small(methods=[{"name": "grid", "search_space": space, "max_trials": 4096}])).encode())
    assert len(known_points(job, search(job), 100, None)) == 4096


# --- what one spec may ask for -------------------------------------------------------------------------


def refused(**changes) -> list[FieldError]:
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(**changes)).encode())
    return list(caught.value.errors)


def test_a_job_has_so_many_values_to_search_and_no_more():
    space = {key: FOUR_KEYS[key] for key in ("learning_rate", "optimizer.momentum")}  # 128 values
    searches = [{"name": "tpe", "label": f"tpe-{number}", "search_space": space} for number in range(9)]
    parse_spec(json.dumps(small(methods=searches[:8])).encode())
    [error] = refused(methods=searches)
    assert (error.field, error.value) == ("methods[8]", "tpe-8")
    assert "more than 1024 values and points to search; split it" in error.message


def test_a_job_has_so_many_trainings_and_no_more():
    sweep = {"name": "sweep", "learning_rates": [0.1, 0.2]}
    sweeps = [sweep | {"label": f"sweep-{number}"} for number in range(32)]
    parse_spec(json.dumps(small(methods=sweeps[:30], seeds=100)).encode())
    many = {"learning_rates": [0.01 * place for place in range(1, 65)]}
    [error] = refused(methods=[one | many for one in sweeps[:2]], seeds=100)
    assert (error.field, error.value) == ("seeds", 100)
    assert error.message == "make 12800 trainings, more than a job may have (10000); lower it, or split the job"


# --- studies -------------------------------------------------------------------------------------------

LINEAR = {"name": "fixed", "scaling": {"rule": "linear", "base_batch_size": 64}}
STUDY = {
    "name": "study",
    "batch_sizes": [64, 256],
    "variants": [
        {"name": "linear", "method": LINEAR},
        {"name": "searched", "method": "stpt", "optimizer": "adam", "initial_learning_rate": 0.002},
    ],
}


def test_the_points_of_a_study_are_variants_at_batch_sizes():
    job = spec(STUDY, workers=2, seeds=3, epochs=8, optimizer={"name": "sgd", "momentum": 0.0})
    points = known_points(job, search(job), 0, None)
    assert [(point["global_batch_size"], point["variant"]) for point in points] == [
        *((64, "linear"), (64, "searched"), (256, "linear"), (256, "searched"))
    ]
    assert most_trials(job, search(job), 100, None) == 4
    linear, searched = (search(job).trial_spec(job, point, seed=5, epochs=8) for point in points[2:])
    assert (linear.global_batch_size, linear.workers, linear.seed, linear.seeds, linear.epochs) == (256, 1, 5, 1, 8)
    assert linear.methods[0].model_dump(exclude_none=True) == {
        "name": "fixed",
        "label": "fixed",
        "scaling": {"rule": "linear", "base_batch_size": 64, "momentum": False},
    }
    assert (linear.optimizer, searched.optimizer.name) == (job.optimizer, "adam")
    assert (linear.initial_learning_rate, searched.initial_learning_rate) == (0.1, 0.002)
    assert [method.name for method in searched.methods] == ["stpt"]


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        (
            {"batch_sizes": [64, 2048]},
            "batch_sizes[1]",
            "with batch 2048: the training set has 1293 samples, less than",
        ),
        (
            {"variants": [{"name": "long", "method": LINEAR | {"warmup": {"kind": "gradual", "epochs": 11}}}]},
            "variants[0].method.warmup.epochs",
            "with batch 64: longer than the whole training (10 epochs)",
        ),
        (
            {"variants": [{"name": "a", "method": LINEAR | {"lr_schedule": {"power": 1}}}]},
            "variants[0].method.lr_schedule.kind",
            "Field required: one of 'polynomial', 'cosine', 'step'",
        ),
        (
            {"batch_sizes": [600], "variants": [{"name": "a", "method": "autolrs"}]},
            "variants[0].method.trial_iterations",
            "with batch 600: a trial takes 4 iterations at least, and a stage may be an epoch, which has 2",
        ),
        (
            {"variants": [{"name": "a", "method": {"name": "lr-range-test", "min_learning_rate": 20}}]},
            "variants[0].method.max_learning_rate",
            "with batch 64: must be above min_learning_rate (20)",
        ),
        ({"variants": [{"name": "a", "method": "sweep"}]}, "variants[0].method", "must be one of 'stpt', 'reference'"),
        (
            {"variants": [{"name": "a", "method": "stpt", "optimizer": {"name": "sgd", "momentum": 1}}]},
            "variants[0].optimizer.momentum",
            "less than 1",
        ),
        ({"batch_sizes": [64, 64]}, "", "each batch size once, not 64, 64"),
        ({"variants": [{"name": "a", "method": "stpt"}] * 2}, "", "each variant once, not a, a"),
    ],
)
def test_every_point_of_a_study_must_make_a_spec(changes, field, message):
    document = small(methods=["stpt", STUDY | changes])
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(document).encode())
    [error] = caught.value.errors
    assert error.field == f"methods[1].{field}".rstrip(".")
    assert message in error.message


SPACE, PLAIN = "methods[0].search_space.global_batch_size", {"name": "plain", "method": "fixed"}
LONE = "one sample a worker is too little for the batch normalisation of lenet5-bn at 28 pixels; raise it to 2"
LAST = "leaves a forward pass with one sample, which is too little for the batch normalisation of lenet5-bn at 28"


@pytest.mark.parametrize(
    ("method", "field", "value", "message"),
    [
        ({"name": "study", "batch_sizes": [64, 1], "variants": [PLAIN]}, "methods[0].batch_sizes[1]", 1, LONE),
        ({"name": "study", "batch_sizes": [64, 3], "variants": [PLAIN]}, "microbatch_size", 2, LAST),
        ({"name": "random", "search_space": {"global_batch_size": {"choice": [64, 1]}}}, SPACE, 1, LONE),
        ({"name": "random", "search_space": {"global_batch_size": {"choice": [64, 3]}}}, SPACE, 3, LAST),
    ],
)
def test_the_model_must_take_every_batch_that_is_tried(method, field, value, message):
    """In passes of 2 samples; of 3 the last one has 1."""
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(model="lenet5-bn", microbatch_size=2, methods=[method])).encode())
    [error] = caught.value.errors
    assert (error.field, error.value) == (field, value)
    assert message in error.message


# --- the batch ramp ------------------------------------------------------------------------------------


def test_a_trial_of_a_ramp_has_its_batch_learning_rate_and_momentum():
    job = spec("batch-ramp", workers=2, lr_schedule="constant")
    config = {"global_batch_size": 1024, "learning_rate": 0.3, "optimizer.momentum": 0.95}
    trial = search(job).trial_spec(job, config, seed=3, epochs=10)
    assert (trial.global_batch_size, trial.initial_learning_rate, trial.optimizer.momentum) == (1024, 0.3, 0.95)
    assert (trial.lr_schedule, trial.seed) == ("constant", 3)
    assert set(search_space(job, search(job))) == set(config)
    # 20 iterations of 64 an epoch: 128, 256, 512, 1024, and one that falls in each phase
    assert most_trials(job, search(job), 20 * 64, None) == 6


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        (
            {"optimizer": "adam"},
            "optimizer",
            "has no momentum, which batch-ramp scales in its second phase; take sgd, lars or tvlars",
        ),
        ({"global_batch_size": 650}, "global_batch_size", "batch-ramp cannot double it within the training set"),
    ],
)
def test_a_ramp_that_cannot_be(changes, field, message):
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=["batch-ramp"], **changes)).encode())
    [error] = caught.value.errors
    assert error.field == field
    assert message in error.message
