"""What a spec may say of AutoLRS, how a training falls into stages, what that costs, and what is left to train by
again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.cost import forecast
from service.errors import InvalidInput
from service.spec.job import JobSpec
from service.spec.methods.autolrs import AutoLrsMethod, LrStage
from service.spec.methods.base import Schedule
from service.validation.door import parse_spec
from tests.unit.service.specs import small

EPOCH = 20 * 64  # samples: digits' 1293 in batches of 64


def spec(method="autolrs", **changes):
    return JobSpec.model_validate(small(methods=[method], **changes))


def test_by_its_name_alone_it_has_the_constants_of_its_authors():
    method = AutoLrsMethod()
    assert (method.trials, method.kappa) == (10, 1e6)
    assert [(stage.epochs, stage.trial_iterations) for stage in method.stages(40, 1000)] == [
        (1, 100),
        (2, 200),
        (4, 400),
        (8, 800),
        (8, 800),
        (8, 800),
        (8, 800),
        (1, 100),  # what is left
    ]
    assert spec().methods == [method]


@pytest.mark.parametrize(
    ("fields", "epochs", "iterations", "lengths"),
    [
        ({}, 8, 62, [4, 4]),  # 1,000 iterations are more than half of these 496
        ({}, 1, 62, [1]),
        ({}, 2, 62, [1, 1]),
        ({}, 3, 62, [2, 1]),
        ({}, 3, 5000, [1, 2]),  # an epoch at least
        ({"stage_iterations": 62}, 8, 62, [1, 2, 4, 1]),
        ({"stage_iterations": 100}, 8, 62, [2, 4, 2]),  # rounded to whole epochs
        ({"stage_iterations": 62, "max_stage_iterations": 62}, 3, 62, [1, 1, 1]),
        ({"stage_iterations": 62, "max_stage_iterations": 186}, 9, 62, [1, 2, 3, 3]),
        ({"stage_iterations": 6200}, 8, 62, [8]),
    ],
)
def test_stages(fields, epochs, iterations, lengths):
    stages = AutoLrsMethod(**fields).stages(epochs, iterations)
    assert [stage.epochs for stage in stages] == lengths
    assert [stage.first_epoch for stage in stages] == [1 + sum(lengths[:number]) for number in range(len(lengths))]


def test_behind_a_longest_stage_trials_go_by_validation_losses():
    method = AutoLrsMethod(stage_iterations=20, max_stage_iterations=40)
    assert method.stages(6, 20) == [
        LrStage(first_epoch=1, epochs=1, trial_iterations=4, by_validation=False),  # two would be a tenth
        LrStage(first_epoch=2, epochs=2, trial_iterations=4, by_validation=False),
        LrStage(first_epoch=4, epochs=2, trial_iterations=4, by_validation=True),
        LrStage(first_epoch=6, epochs=1, trial_iterations=4, by_validation=True),
    ]


@given(
    epochs=st.integers(1, 400),
    iterations=st.integers(4, 3000),
    first=st.none() | st.integers(1, 5000),
    more=st.none() | st.integers(0, 20_000),
)
def test_stages_follow_each_other_to_the_end_of_the_training(epochs, iterations, first, more):
    longest = None if more is None else (first or 0) + more + 1
    method = AutoLrsMethod(stage_iterations=first, max_stage_iterations=longest)
    stages = method.stages(epochs, iterations)
    assert [stage.first_epoch for stage in stages] == [
        1 + sum(stage.epochs for stage in stages[:number]) for number in range(len(stages))
    ]
    assert sum(stage.epochs for stage in stages) == epochs
    lengths = [stage.epochs for stage in stages[:-1]]  # the last one is cut off
    assert lengths == sorted(lengths)
    assert all(4 <= stage.trial_iterations <= max(4, stage.epochs * iterations / 10 + 1) for stage in stages)


@pytest.mark.parametrize(
    ("fields", "epochs", "trials"),
    [
        ({}, 10, 2 * 10 * 10),  # two stages of 100 iterations
        ({"trials": 3}, 10, 2 * 3 * 10),
        ({"trial_iterations": 20}, 10, 2 * 10 * 20),
        ({"stage_iterations": 20}, 10, 10 * (4 + 4 + 8 + 6)),  # 20, 40, 80, and 60 are left
        ({"stage_iterations": 20, "max_stage_iterations": 20}, 10, 10 * 10 * 4),
    ],
)
def test_what_it_costs(fields, epochs, trials):
    """Iterations of trials, beside those of the training; about as many, for ten trials of a tenth each."""
    [found] = forecast(spec({"name": "autolrs", **fields}, epochs=epochs), 1293)
    assert (found.method, found.trainings, found.samples) == ("autolrs", 1, epochs * EPOCH + 64 * trials)


@pytest.mark.parametrize(
    ("budget", "epochs"),
    [
        ({"epochs": 20}, 10),  # as many again for the trials
        ({"epochs": 19.9}, 9),
        ({"samples": 3 * EPOCH}, 1),
        ({"samples": 2 * EPOCH + 20 * 64}, 1),  # one epoch and ten trials of four iterations
        ({"samples": 7 * EPOCH - 64}, 2),  # three have stages of two and one: 60 + 40 + 40 iterations, one too many
        ({"samples": 7 * EPOCH}, 3),
    ],
)
def test_trials_and_training_keep_within_the_budget(budget, epochs):
    job = spec(budget=budget)
    [found] = forecast(job, 1293)
    room = budget.get("samples", round(budget.get("epochs", 0) * EPOCH))
    assert job.methods[0].training_epochs(job, EPOCH, room) == epochs
    assert found.samples == job.methods[0].training_samples(job, EPOCH, epochs) <= room


@given(
    budget=st.integers(3 * EPOCH, 10_000 * EPOCH),
    first=st.none() | st.integers(1, 5000),
    trials=st.integers(1, 10),
)
def test_no_budget_is_exceeded(budget, first, trials):
    job = spec()
    method = AutoLrsMethod(stage_iterations=first, trials=trials)
    epochs = method.training_epochs(job, EPOCH, budget)
    assert method.training_samples(job, EPOCH, epochs) <= budget
    assert method.training_samples(job, EPOCH, epochs + 1) > budget


def test_a_budget_below_an_epoch_and_its_trials_is_refused():
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=["autolrs"], budget={"samples": 3839})).encode())
    (error,) = caught.value.errors
    assert (error.field, error.value) == ("budget.samples", 3839)
    assert error.message == (
        "less than the search of autolrs (2560 samples) and an epoch (1280); give 3840 at least, or let it search less"
    )
    assert parse_spec(json.dumps(small(methods=["autolrs"], budget={"samples": 3840})).encode())


@pytest.mark.parametrize(
    ("fields", "changes", "field", "value", "message"),
    [
        (
            {"search_interval": [0.1, 0.1]},
            {},
            "search_interval",
            [0.1, 0.1],
            "must rise from the lowest learning rate to the highest; give the lower one first",
        ),
        (
            {"stage_iterations": 100, "max_stage_iterations": 99},
            {},
            "max_stage_iterations",
            99,
            "less than stage_iterations (100), with which stages begin; raise it, or lower that",
        ),
        (
            {"trial_iterations": 21},
            {},
            "trial_iterations",
            21,
            "a trial takes 4 iterations at least, and a stage may be an epoch, which has 20 (1293 samples / batch 64); "
            "lower it",
        ),
        (
            {},
            {"global_batch_size": 400},
            "trial_iterations",
            4,
            "a trial takes 4 iterations at least, and a stage may be an epoch, which has 3 (1293 samples / batch 400); "
            "choose a smaller batch",
        ),
    ],
)
def test_what_is_refused(fields, changes, field, value, message):
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=[{"name": "autolrs", **fields}], **changes)).encode())
    (error,) = caught.value.errors
    assert (error.field, error.value, error.message) == (f"methods[0].{field}", value, message)


def test_it_searches_what_lr_set_tries_first_unless_told_otherwise():
    assert AutoLrsMethod().interval([0.1, 1.0, 0.01]) == (0.01, 1.0)
    assert AutoLrsMethod(search_interval=[0.001, 0.1]).interval([0.1, 1.0]) == (0.001, 0.1)
    assert AutoLrsMethod().interval([0.1]) == (0.01, 1.0)  # around a single one, as other searches do
    assert AutoLrsMethod().interval([1e6]) == (1e5, 1e6)  # there is none above


def test_one_learning_rate_an_epoch_tells_it():
    method = AutoLrsMethod()
    assert method.is_replayable
    assert method.schedule_of([0.2, 0.1], spec(), {}) == Schedule(learning_rates=[0.2, 0.1], rescale_momentum=False)
    assert method.trained_iterations(spec(), 1, 26, [2] * 3, 0) == 20
    assert method.trained_iterations(spec(), 2, 20, [], 0) == 20
