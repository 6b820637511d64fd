"""Replay against plain arithmetic."""

import json
import math

import pytest
import torch
from torch.optim import SGD

from forerun.schedules import Replay
from service.wire.answers import JobSchedule

SCHEDULE = {
    "job_id": "job-1",
    "label": "stpt",
    "method": "stpt",
    "trial": 1,
    "iterations_per_epoch": 2,
    "learning_rates": [0.005, 0.4, 0.1],
    "lr_schedule": "linear",
    "warmup_epochs": 1,
}
# by hand: no lr_schedule in the warm-up; then 4/6 and 3/6 of 0.4, 2/6 and 1/6 of 0.1
RATES = [0.005, 0.005, 0.4 * 4 / 6, 0.4 * 3 / 6, 0.1 * 2 / 6, 0.1 * 1 / 6]


def sgd(*learning_rates: float) -> SGD:
    """An SGD optimizer with a parameter group for each learning rate, with one weight of 1 in it."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in learning_rates]
    return SGD(groups, lr=1.0)


def applied(optimizer: SGD, scheduler: Replay, steps: int) -> list[list[float]]:
    """The learning rates of every group, at each of the next `steps` iterations."""
    rates = []
    for _ in range(steps):
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def test_two_groups_keep_their_ratio_and_the_end_stays():
    optimizer = sgd(0.1, 0.05)
    found = applied(optimizer, Replay(optimizer, SCHEDULE), 9)
    expected = [[rate, rate / 2] for rate in [*RATES, RATES[-1], RATES[-1], RATES[-1]]]
    assert found == [pytest.approx(pair, rel=1e-12) for pair in expected]


def test_the_schedule_of_a_race_rises_over_its_share():
    """Of 6 iterations the first 2 rise, to 1/3 and 2/3."""
    raced = SCHEDULE | {"learning_rates": [0.3, 0.3, 0.3], "warmup_epochs": 0, "warmup_share": 0.34}
    optimizer = sgd(0.3)
    found = applied(optimizer, Replay(optimizer, raced), 7)
    expected = [0.3 * 1 / 3, 0.3 * 5 / 6 * 2 / 3, 0.2, 0.15, 0.1, 0.05, 0.05]
    assert [rate for [rate] in found] == pytest.approx(expected, rel=1e-12)


def test_weights_are_those_of_the_written_out_learning_rates():
    optimizer, plain = sgd(0.1), sgd(0.1)
    scheduler = Replay(optimizer, SCHEDULE)
    for rate in RATES:
        for each in (optimizer, plain):
            [weight] = each.param_groups[0]["params"]
            weight.grad = weight.detach().clone()  # of w**2 / 2
        plain.param_groups[0]["lr"] = rate
        optimizer.step()
        plain.step()
        scheduler.step()
    weight = optimizer.param_groups[0]["params"][0]
    assert weight == plain.param_groups[0]["params"][0]
    assert weight.item() == pytest.approx(math.prod(1 - rate for rate in RATES), rel=1e-6)


def test_a_schedule_is_stretched_to_other_batches():
    optimizer = sgd(0.1)
    found = applied(optimizer, Replay(optimizer, SCHEDULE, iterations_per_epoch=4), 12)
    after_warmup = [(0.4 if iteration < 8 else 0.1) * (12 - iteration) / 12 for iteration in range(4, 12)]
    assert [rate for [rate] in found] == pytest.approx([0.005] * 4 + after_warmup, rel=1e-12)


@pytest.mark.parametrize("done", [0, 1, 3, 7])
def test_it_goes_on_where_it_was_saved(done):
    optimizer = sgd(0.1, 0.2)
    scheduler = Replay(optimizer, SCHEDULE)
    applied(optimizer, scheduler, done)
    saved = json.loads(json.dumps(scheduler.state_dict()))  # plain values
    weights = optimizer.state_dict()

    again = sgd(0.1, 0.2)
    resumed = Replay(again, SCHEDULE)
    again.load_state_dict(weights)
    resumed.load_state_dict(saved)
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    assert applied(again, resumed, 4) == applied(optimizer, scheduler, 4)


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_a_schedule_may_be_a_file(tmp_path, as_path):
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(SCHEDULE))
    optimizer = sgd(0.1)
    assert [rate for [rate] in applied(optimizer, Replay(optimizer, as_path(path)), 6)] == pytest.approx(RATES)


def test_a_newer_service_may_say_more():
    assert Replay(sgd(0.1), SCHEDULE | {"unknown": 1}).iterations_per_epoch == 2


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({}, "iterations_per_epoch"),
        (SCHEDULE | {"iterations_per_epoch": 0}, "not 0"),
        (SCHEDULE | {"iterations_per_epoch": "2"}, "not '2'"),
        ({"iterations_per_epoch": 2}, "learning_rates"),
        (SCHEDULE | {"learning_rates": []}, "learning_rates"),
        (SCHEDULE | {"learning_rates": [0.1, 0.0]}, "learning_rates"),
        (SCHEDULE | {"lr_schedule": "sine"}, "lr_schedule"),
    ],
)
def test_what_is_no_schedule_is_refused(document, what):
    with pytest.raises(ValueError, match=what):
        Replay(sgd(0.1), document)


def test_what_is_no_number_of_iterations_is_refused():
    with pytest.raises(ValueError, match="iterations_per_epoch: must be a whole number, 1 at least, not 0"):
        Replay(sgd(0.1), SCHEDULE, iterations_per_epoch=0)


def test_a_schedule_may_be_the_client_s():
    optimizer = sgd(0.1)
    scheduler = Replay(optimizer, JobSchedule.model_validate(SCHEDULE))
    assert applied(optimizer, scheduler, 6) == [[pytest.approx(rate, rel=1e-12)] for rate in RATES]


def test_a_file_that_holds_no_schedule_is_refused(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="as `forerun results schedule JOB` prints it"):
        Replay(sgd(0.1), tmp_path / "list.json")
    (tmp_path / "text.json").write_text("learning_rates: 1")
    with pytest.raises(ValueError, match="Expecting value"):
        Replay(sgd(0.1), tmp_path / "text.json")
