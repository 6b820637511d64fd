"""A range test beside another method, through REST, Ray Train on two workers, and SQL."""

from typing import Any

from service.wire.answers import Plan
from tests.e2e.service import Service

EPOCH = 26 * 48  # samples of an epoch: 1293 training images of digits in batches of 48
METHODS = ["cosine", {"name": "lr-range-test", "max_learning_rate": 1.0, "iterations": 30}]
SPEC: dict[str, Any] = {
    "name": "range test",
    "model": "lenet5",
    "dataset": "digits",
    "global_batch_size": 48,
    "epochs": 3,
    "workers": 2,
    "methods": METHODS,
    "budget": {"epochs": 4},
}


def test_it_chooses_trains_and_is_compared_at_equal_cost(service: Service) -> None:
    with service.client as client:
        plan: Plan = client.plan(SPEC)
        job = client.submit(SPEC)
        events = list(client.events(job.id))
        job, epochs, trials = client.read_job(job.id), client.epochs(job.id), client.trials(job.id)
        comparison = client.comparison(job.id)
    assert job.state == "succeeded", job.error
    cosine, tested = trials
    # 30 iterations of the test leave room for two epochs of 26
    assert (tested.length, tested.samples) == (2, 30 * 48 + 2 * EPOCH)
    assert {run.label: run.samples for run in plan.runs} == {"cosine": 4 * EPOCH, "lr-range-test": tested.samples}
    assert (
        [run.samples.mean for run in comparison] == [cosine.samples, tested.samples] == [4 * EPOCH, 56 * 48 + 26 * 48]
    )
    its = [epoch for epoch in epochs if epoch.label == "lr-range-test"]
    assert [epoch.samples for epoch in its] == [30 * 48 + EPOCH, EPOCH]
    curve = tested.config["range_test"]
    assert {epoch.learning_rate for epoch in its} == {tested.config["learning_rate"]}
    assert 1e-7 < tested.config["learning_rate"] < 1.0
    assert (curve["iterations"], curve["diverged"], len(curve["smoothed_losses"])) == (30, False, 30)
    chosen = [event for event in events if event.kind == "trial" and event.config]
    assert [event.config for event in chosen] == [tested.config]
