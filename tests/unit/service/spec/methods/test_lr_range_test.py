"""What a spec may say of a range test, what it costs, and what is left of it to train by again."""

import json

import pytest

from service.algorithms.cost import forecast
from service.errors import InvalidInput
from service.spec.job import JobSpec
from service.spec.methods.base import Schedule
from service.spec.methods.lr_range_test import LrRangeTestMethod
from service.validation.door import parse_spec
from tests.unit.service.specs import small

EPOCH = 20 * 64  # samples: digits' 1293 in batches of 64


def spec(method="lr-range-test", **changes):
    return JobSpec.model_validate(small(methods=[method], **changes))


def test_by_its_name_alone_it_is_the_lr_find_of_fastai_and_lightning():
    """0.98 of the past, 4 times the best and 100 iterations are both libraries' defaults, the range is fastai's."""
    method = LrRangeTestMethod()
    assert (method.min_learning_rate, method.max_learning_rate, method.iterations) == (1e-7, 10.0, 100)
    assert (method.smoothing, method.divergence_threshold) == (0.98, 4.0)
    assert (method.suggestion, method.lr_schedule) == ("steepest", "one-cycle")
    assert spec().methods == [method]


@pytest.mark.parametrize(
    ("fields", "budget", "epochs", "samples"),
    [
        ({}, None, 10, 100 * 64 + 10 * EPOCH),  # the test comes on top
        ({"iterations": None}, None, 10, 11 * EPOCH),
        ({"iterations": 10}, None, 10, 10 * 64 + 10 * EPOCH),
        ({}, {"epochs": 25.9}, 20, 25 * EPOCH),  # 100 iterations are five epochs: 20.9 are left
        ({"iterations": None}, {"epochs": 25.9}, 24, 25 * EPOCH),
        ({"iterations": 10}, {"epochs": 25.9}, 25, 25 * EPOCH + 10 * 64),
        ({"iterations": 10}, {"samples": EPOCH + 10 * 64}, 1, EPOCH + 10 * 64),
    ],
)
def test_the_budget_is_the_tests_and_the_trainings(fields, budget, epochs, samples):
    job = spec({"name": "lr-range-test", **fields}, budget=budget)
    [found] = forecast(job, 1293)
    assert (found.method, found.trainings, found.samples) == ("lr-range-test", 1, samples)
    room = None if budget is None else budget.get("samples", round(budget.get("epochs", 0) * EPOCH))
    assert job.methods[0].training_epochs(job, EPOCH, room) == epochs


def test_a_budget_too_small_for_both_leaves_an_epoch():
    """As with every baseline: what stpt takes is known too late to refuse it."""
    job = spec()
    assert job.methods[0].training_epochs(job, EPOCH, 3 * EPOCH) == 1


@pytest.mark.parametrize(
    ("budget", "field", "message"),
    [
        (
            {"samples": 7679},
            "budget.samples",
            "less than the search of lr-range-test (6400 samples) and an epoch (1280); give 7680 at least, or let it "
            "search less",
        ),
        (
            {"epochs": 5.9},
            "budget.epochs",
            "less than the search of lr-range-test (6400 samples) and an epoch (1280); give 6 at least, or let it "
            "search less",
        ),
    ],
)
def test_a_budget_below_the_test_and_an_epoch_is_refused(budget, field, message):
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=["cosine", "lr-range-test"], budget=budget)).encode())
    (error,) = caught.value.errors
    assert (error.field, error.value, error.message) == (field, next(iter(budget.values())), message)


@pytest.mark.parametrize("budget", [{"samples": 7680}, {"epochs": 6}, {"relative_to": "stpt", "times": 0.01}])
def test_a_budget_of_the_test_and_an_epoch_is_accepted(budget):
    assert parse_spec(json.dumps(small(methods=["stpt", "lr-range-test"], budget=budget)).encode()).budget is not None


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.1), (0.1, 0.01)])
def test_the_learning_rate_must_rise(low, high):
    method = {"name": "lr-range-test", "min_learning_rate": low, "max_learning_rate": high}
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=[method])).encode())
    (error,) = caught.value.errors
    assert (error.field, error.value) == ("methods[0].max_learning_rate", high)
    assert error.message == "must be above min_learning_rate (0.1); raise it, or lower that"


def test_only_under_a_linear_schedule_one_learning_rate_an_epoch_tells_it():
    assert not LrRangeTestMethod().is_replayable
    linear = LrRangeTestMethod(lr_schedule="linear")
    assert linear.is_replayable
    assert linear.schedule_of([0.2, 0.2], spec(), {}) == Schedule(learning_rates=[0.2, 0.2], lr_schedule="linear")


def test_the_iterations_of_the_test_are_no_part_of_the_first_epoch():
    method = LrRangeTestMethod()
    assert method.searched_iterations({"learning_rate": 0.1, "range_test": {"iterations": 83}}) == 83
    assert method.searched_iterations({}) == 0
