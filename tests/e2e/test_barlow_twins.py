"""Barlow Twins by STPT on a part of CIFAR-10, through REST, Ray and SQL."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Service

SPEC: dict[str, Any] = {
    "name": "barlow twins",
    "model": "lenet5-bn",
    "optimizer": "adam",
    "dataset": {"name": "cifar10", "train_samples": 512, "validation_fraction": 0.01},
    "task": {
        "name": "barlow-twins",
        "projector": [64, 64],
        "probe": {"train_samples": 512, "epochs": 50},
    },
    "global_batch_size": 128,
    "epochs": 2,
    "workers": 1,  # two are in tests/unit/workers/test_tasks.py; each would decode all images of the test split
    "lr_set": {"learning_rates": [0.01, 0.001]},
    "methods": [{"name": "stpt", "pretrain": {"iterations": 2}}],
}


@pytest.mark.long
def test_features_are_learned_and_probed(service: Service, real_data: Path) -> None:
    with service.client as client:
        job = client.wait(client.submit(SPEC).id)
        assert job.state == "succeeded", job.error
        epochs = client.epochs(job.id)
        branches = client.branches(job.id)
    assert len(epochs) == 2
    for epoch in epochs:
        assert epoch.samples == (2 * 2 + 2) * 128  # two branches of 2 iterations, then 2 of Main-train
        assert epoch.evaluation_samples >= 2 * 500 + 500 + 10_000 + 2 * 512
        assert epoch.val_loss > 0
        assert epoch.test_accuracy > 0.2  # of the probe; chance is 0.1
    assert len(branches) >= 4
    assert epochs[1].val_loss < 0.95 * epochs[0].val_loss
