"""The baselines that are one training without search, in one job through REST, Ray Train on two workers, and SQL."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from service.wire.answers import Plan
from tests.e2e.service import Service

EPOCH = 26 * 48  # samples of an epoch: 1293 training images of digits in batches of 48
POLLING = {"name": "polling", "learning_rates": [0.01, 0.1], "every": 13}
METHODS = ["linear", "wsd", "prodigy-schedule-free", "dog", "d-adaptation", "mechanic", POLLING]
NAMES = ["linear", "wsd", "prodigy-schedule-free", "dog", "d-adaptation", "mechanic", "polling"]
SPEC: dict[str, Any] = {
    "name": "parameter-free",
    "model": "mlp-ln",
    "dataset": "digits",
    "global_batch_size": 48,
    "epochs": 3,
    "workers": 2,
    "methods": METHODS,
    "budget": {"epochs": 2.5},
}


def test_each_takes_what_was_forecast_and_is_compared_at_equal_cost(service: Service, tmp_path: Path) -> None:
    with service.client as client:
        plan: Plan = client.plan(SPEC)
        job = client.submit(SPEC)
        for _ in client.events(job.id):
            pass
        job, epochs, trials = client.read_job(job.id), client.epochs(job.id), client.trials(job.id)
        comparison = client.comparison(job.id)
        file = client.download_weights(job.id, tmp_path / "dog.safetensors", label="dog", which="last")
    assert job.state == "succeeded", job.error
    # two whole epochs; polling has two batches of two candidates in each, and so room for two as well
    cost = dict.fromkeys(NAMES, 2 * EPOCH) | {"polling": 2 * (EPOCH + 2 * 2 * 48)}
    assert {run.label: run.samples for run in plan.runs} == cost
    assert {trial.label: trial.samples for trial in trials} == cost
    assert {run.label: run.samples.mean for run in comparison} == cost
    assert [(trial.label, trial.state, trial.epochs, trial.length) for trial in trials] == [
        (name, "completed", 2, 2) for name in NAMES
    ]
    last = {epoch.label: epoch.last_learning_rate for epoch in epochs if epoch.epoch == 2}
    assert last["linear"] == pytest.approx(0.1 / 52)
    assert last["prodigy-schedule-free"] == last["dog"] == 1.0
    assert last["polling"] in (0.01, 0.1)
    assert all(run.val_accuracy.mean > 0.15 for run in comparison)  # of ten classes
    assert set(load_file(file)) == {
        *(f"{layer}.{part}" for layer in (1, 2, 4, 5, 7) for part in ("weight", "bias")),
    }
