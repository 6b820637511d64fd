"""One job with STPT and its baselines, through REST, Ray Train, Ray Tune and SQL."""

from typing import Any

import pytest

from service.wire.answers import Event, Job
from tests.e2e.service import Service

EPOCH = 26 * 48  # samples of an epoch: 1293 training images of digits in batches of 48
METHODS = ["stpt", "hyperband", "tpe", "cosine"]  # smac, grid and the rest: tests/integration/test_baselines.py
SPEC: dict[str, Any] = {
    "name": "baselines",
    "model": "lenet5",
    "dataset": "digits",
    "global_batch_size": 48,
    "epochs": 4,
    "workers": 1,  # two: test_main_job.py; trials have one each, and there is room for two at once
    "seed": 7,
    "methods": METHODS,
    "budget": {"relative_to": "stpt", "times": 2.0},
}


@pytest.fixture(scope="module")
def finished(service: Service) -> tuple[Job, list[Event]]:
    with service.client as client:
        job = client.submit(SPEC)
        events = list(client.events(job.id))
        return client.read_job(job.id), events


def test_every_run_trial_and_epoch_is_in_sql_and_costs_add_up(
    service: Service, finished: tuple[Job, list[Event]]
) -> None:
    """In the loop itself, each record's samples are held against the loop's own counter (workers.methods.base)."""
    job, events = finished
    assert job.state == "succeeded", job.error
    with service.client as client:
        epochs = client.epochs(job.id)
        trials = client.trials(job.id)
    reported = [event for event in events if event.kind == "epoch"]
    keys = [(event.method, event.trial, event.epoch) for event in reported]
    assert sorted(keys) == sorted((epoch.method, epoch.trial, epoch.epoch) for epoch in epochs)
    assert len(set(keys)) == len(keys)
    cost = {method: sum(e.samples for e in epochs if e.label == method) for method in METHODS}
    assert cost == {method: sum(t.samples for t in trials if t.method == method) for method in METHODS}
    # a race of a quarter, 26 iterations: 7 looks of 1, 4 of 3, two finalists that go on for 3; then 4 epochs
    assert cost["stpt"] == (7 + 4 * 3 + 2 * 3) * 48 + 4 * EPOCH
    budget = 2 * cost["stpt"] // EPOCH * EPOCH  # baselines train whole epochs
    assert budget == 9 * EPOCH
    assert cost == {"stpt": cost["stpt"], "hyperband": budget, "tpe": budget, "cosine": budget}
    for trial in trials:
        its = [e for e in epochs if (e.label, e.trial) == (trial.label, trial.trial)]
        assert [e.epoch for e in its] == list(range(1, trial.epochs + 1))
        whole = trial.epochs == trial.length
        assert trial.state in (("completed", "diverged") if whole else ("stopped", "diverged")), trial
        assert (trial.state == "diverged") == any(epoch.val_loss is None for epoch in its)
        if trial.label != "stpt":
            assert {e.samples for e in its} == {EPOCH}
        else:
            assert [e.samples for e in its] == [cost["stpt"] - 3 * EPOCH, *[EPOCH] * 3]
    assert len([t for t in trials if t.method == "hyperband" and t.state == "stopped"]) >= 2


def test_the_comparison_has_every_method(service: Service, finished: tuple[Job, list[Event]]) -> None:
    with service.client as client:
        comparison = client.comparison(finished[0].id)
        trials = client.trials(finished[0].id)
    assert [run.method for run in comparison] == METHODS
    for run in comparison:
        cost = sum(trial.samples for trial in trials if trial.label == run.method)
        assert (run.samples.mean, run.samples.spread) == (cost, None)
        assert run.by_seed[0].curve[-1].samples == cost
        assert run.val_accuracy.mean == max(t.val_accuracy for t in trials if t.method == run.method)
