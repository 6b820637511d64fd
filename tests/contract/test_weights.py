"""The weights of a training, over the checkpoints that it left."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import safetensors.torch
import torch

from api.deps import Services
from service.wire.checkpoint import MANIFEST, STATE, checkpoints_of, folder_of
from tests.builders import Worker, claim, epoch_record, run_to_success, submit
from workers import checkpoint
from workers.checkpoint import Position

pytest_plugins = ["tests.databases"]


def tensors(epoch: int) -> dict[str, torch.Tensor]:
    """Of several types, so that those of model and optimizer lie mixed in the file."""
    return {
        "model.0.weight": torch.full((2, 3), float(epoch)),
        "model.1.num_batches_tracked": torch.tensor(epoch),
        "model.1.running_mean": torch.arange(5, dtype=torch.bfloat16),
        "optimizer.0.weight.momentum_buffer": torch.zeros(2, 3),
        "optimizer.0.weight.step": torch.tensor(7),
    }


def folder(services: Services, job_id: str) -> Path:
    return folder_of(checkpoints_of(services.storage_dir, job_id), "stpt", 1)


def start(client: httpx.Client, services: Services, accuracies: Sequence[float], **changes: Any) -> tuple[str, Worker]:
    """A job whose epochs came to these validation accuracies, each with its checkpoint."""
    job_id = submit(client, epochs=5, **changes)
    worker = Worker.started(client, claim(services.store))
    for epoch, accuracy in enumerate(accuracies, start=1):
        ref = checkpoint.save(
            folder(services, job_id), f"epoch-{epoch:06d}-a1", tensors(epoch), Position(learning_rate=0.1)
        )
        record = epoch_record(epoch, val_accuracy=accuracy, test_accuracy=accuracy / 2, checkpoint=ref.model_dump())
        worker.report(record).raise_for_status()
    return job_id, worker


def refusal(client: httpx.Client, job_id: str, **query: Any) -> tuple[int, str, str, Any, str]:
    answer = client.get(f"/v1/jobs/{job_id}/weights", params=query)
    problem = answer.json()
    [error] = problem["errors"]
    return answer.status_code, problem["code"], error["field"], error["value"], error["message"]


def test_the_best_and_the_last(client: httpx.Client, services: Services) -> None:
    job_id, _ = start(client, services, [0.25, 0.75, 0.75, 0.5])
    for query, epoch in (({}, 2), ({"which": "best"}, 2), ({"which": "last", "label": "stpt", "trial": 1}, 4)):
        answer = client.get(f"/v1/jobs/{job_id}/weights", params=query).raise_for_status()
        loaded = safetensors.torch.load(answer.content)
        expected = {name.removeprefix("model."): t for name, t in tensors(epoch).items() if name.startswith("model.")}
        assert loaded.keys() == expected.keys()
        assert all(loaded[name].dtype == t.dtype and loaded[name].equal(t) for name, t in expected.items())
        assert answer.headers["Content-Type"] == "application/octet-stream"
        name = f"{job_id}-stpt-1-epoch-{epoch}.safetensors"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert answer.headers["Content-Length"] == str(len(answer.content))
        digest = b64encode(hashlib.sha256(answer.content).digest()).decode()
        assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"


def test_the_file_says_what_it_is(client: httpx.Client, services: Services) -> None:
    job_id, _ = start(client, services, [0.75])
    content = client.get(f"/v1/jobs/{job_id}/weights").content
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    assert json.loads(content[8 : 8 + length])["__metadata__"] == {
        "format": "pt",
        "job": job_id,
        "label": "stpt",
        "trial": "1",
        "epoch": "1",
        "model": "lenet5",
        "dataset": "digits",
        "val_accuracy": "0.75",
        "test_accuracy": "0.375",
    }


def test_an_epoch_that_left_no_checkpoint_is_passed_over(client: httpx.Client, services: Services) -> None:
    job_id, worker = start(client, services, [0.25, 0.5])
    worker.report(epoch_record(3, val_accuracy=1.0, val_loss=None)).raise_for_status()  # it diverged
    for which in ("best", "last"):
        name = client.get(f"/v1/jobs/{job_id}/weights?which={which}").headers["Content-Disposition"]
        assert name.endswith('-epoch-2.safetensors"')


def test_no_epoch_yet(client: httpx.Client, services: Services) -> None:
    job_id, _ = start(client, services, [])
    message = (
        f"job {job_id} has recorded no epoch of stpt 1 that left a checkpoint; wait for the first: "
        f"GET /v1/jobs/{job_id}/events tells of it, and of the job's end"
    )
    assert refusal(client, job_id, which="last") == (404, "no_weights", "which", "last", message)


def test_a_job_without_checkpoints(client: httpx.Client, services: Services) -> None:
    assert refusal(client, run_to_success(client, services.store))[:4] == (404, "no_weights", "which", "best")


@pytest.mark.parametrize("damage", ["gone", "cut", "altered", "another manifest"])
def test_files_that_are_gone_or_altered(client: httpx.Client, services: Services, damage: str) -> None:
    job_id, _ = start(client, services, [0.75, 0.5])
    best = folder(services, job_id) / "epoch-000001-a1"
    content = (best / STATE).read_bytes()
    match damage:
        case "gone":
            best.rename(best.with_name("elsewhere"))
        case "cut":
            (best / STATE).write_bytes(content[:-1])
        case "altered":
            (best / STATE).write_bytes(content[:-1] + b"!")
        case _:
            facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            (best / MANIFEST).write_text(json.dumps({STATE: facts}))
    message = "the checkpoint of epoch 1 is gone, or not as it was written; ask for which=last, or submit the job again"
    assert refusal(client, job_id) == (404, "no_weights", "which", "best", message)
    assert client.get(f"/v1/jobs/{job_id}/weights?which=last").status_code == 200


def test_no_such_training(client: httpx.Client, services: Services) -> None:
    job_id, _ = start(client, services, [0.75], seeds=2, methods=["stpt", "tpe"])
    has = f"job {job_id} has no such run; it has stpt, tpe"
    for method in ("sweep", "../stpt", "..", "/etc"):
        assert refusal(client, job_id, label=method) == (404, "no_weights", "label", method, has)
    has = f"job {job_id} has the trials 1 to 2 of stpt"
    assert refusal(client, job_id, trial=3) == (404, "no_weights", "trial", 3, has)
    assert refusal(client, job_id, label="tpe")[4].startswith("the trials of a search leave no checkpoints; train")
    assert client.get("/v1/jobs/..%2f..%2fetc/weights").json()["code"] == "not_found"
    assert client.get("/v1/jobs/job-1/weights").json()["code"] == "not_found"
    assert client.get(f"/v1/jobs/{job_id}/weights?which=newest").json()["code"] == "invalid_input"
