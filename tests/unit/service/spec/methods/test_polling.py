"""What a spec may say of polling, and what it costs."""

import json

import pytest

from service.algorithms.cost import forecast
from service.errors import InvalidInput
from service.spec.job import JobSpec
from service.spec.methods.polling import PollingMethod
from service.validation.door import parse_spec
from tests.unit.service.specs import small

EPOCH = 20 * 64  # samples: digits' 1293 in batches of 64


@pytest.mark.parametrize(
    ("fields", "budget", "epochs", "samples"),
    [
        ({}, None, 10, 60 * EPOCH),  # five candidates and the training
        ({"learning_rates": [0.01, 0.1]}, None, 10, 30 * EPOCH),
        ({"every": 10}, None, 10, 15 * EPOCH),  # twenty polls of five batches
        ({"every": 7}, None, 10, 10 * EPOCH + 29 * 5 * 64),  # 200 iterations: 28.6 polls
        ({}, {"epochs": 25.9}, 4, 24 * EPOCH),
        ({}, {"epochs": 24}, 4, 24 * EPOCH),
        ({"every": 7}, {"epochs": 25.9}, 15, 15 * EPOCH + 43 * 5 * 64),
        ({"every": 100_000}, {"epochs": 25.9}, 25, 25 * EPOCH + 5 * 64),
        ({"every": 100_000}, {"samples": 25 * EPOCH}, 24, 24 * EPOCH + 5 * 64),
    ],
)
def test_polls_are_part_of_the_budget(fields, budget, epochs, samples):
    job = JobSpec.model_validate(small(methods=[{"name": "polling", **fields}], budget=budget))
    [found] = forecast(job, 1293)
    assert (found.method, found.trainings, found.samples) == ("polling", 1, samples)
    room = None if budget is None else budget.get("samples", round(budget.get("epochs", 0) * EPOCH))
    assert job.methods[0].training_epochs(job, EPOCH, room) == epochs


def test_a_budget_below_a_polled_epoch_is_refused():
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=["polling"], budget={"epochs": 5.9})).encode())
    [error] = caught.value.errors
    assert error.field == "budget.epochs"
    assert error.message.startswith(
        "less than the search of polling (6400 samples) and an epoch (1280); give 6 at least"
    )
    method = PollingMethod()
    job = parse_spec(json.dumps(small(methods=[method.model_dump()], budget={"epochs": 6})).encode())
    assert job.methods == [method]


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([0.1, 0.01], "must rise; sort them, and leave repetitions out"),
        ([0.1, 0.1], "must rise; sort them, and leave repetitions out"),
        ([0.1], "List should have at least 2 items after validation, not 1"),
    ],
)
def test_learning_rates_rise(rates, message):
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=[{"name": "polling", "learning_rates": rates}])).encode())
    [error] = caught.value.errors
    assert (error.field, error.message) == ("methods[0].learning_rates", message)


def test_barlow_twins_tells_no_accuracy_of_a_batch():
    document = small(methods=[{"name": "polling", "criterion": "accuracy"}], task="barlow-twins")
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(document).encode())
    assert [(error.field, error.message) for error in caught.value.errors] == [
        ("methods[0].criterion", "cannot be told of a batch by the task barlow-twins; use loss")
    ]
