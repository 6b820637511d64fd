"""A job's life on the real thing: paused and resumed, cancelled while its workers start."""

import time
from pathlib import Path
from typing import Any

import torch

from forerun.client import Client
from forerun.jobs import JobHandle
from service.spec.job import JobSpec
from tests.e2e.service import Service
from tests.processes import of_each, wait_until
from tests.unit.workers.ranks import stpt_of
from workers.build import build_trainer
from workers.datasets.load import load_data
from workers.engine.groups import Workers

SPEC: dict[str, Any] = {
    "model": "lenet5",
    "dataset": "digits",
    "epochs": 5,
    "workers": 1,
    "lr_set": {"learning_rates": [0.1, 0.05]},
}


def pause_behind_an_epoch(client: Client, job: JobHandle) -> None:
    """Ask for a pause when the job has recorded an epoch, and wait until it is paused."""
    asked = False
    for event in job.follow():
        if event.kind != "state" and not asked:
            job.pause()
            asked = True
        if event.kind == "state" and event.state == "paused":
            return
    raise AssertionError(client.read_job(job.id))


def test_a_paused_job_goes_on_bit_for_bit(service: Service, tmp_path: Path) -> None:
    with service.client as client:
        job = client.submit(SPEC)
        pause_behind_an_epoch(client, job)
        paused = job.refresh()
        assert 1 <= paused.epochs_done < 5
        assert (paused.reason, paused.queue_position) == ("paused by its user", None)
        job.resume()
        ended = job.wait()
        epochs = job.epochs()
        states = [event.state for event in job.follow() if event.kind == "state"]
    assert ended.state == "succeeded", ended.error
    assert states == [
        *("queued", "submitting", "running", "pausing", "paused"),
        *("queued", "submitting", "running", "succeeded"),
    ]
    assert {epoch.attempt for epoch in epochs} == {1, 2}
    spec = JobSpec.model_validate(SPEC)
    data = load_data(spec.dataset, tmp_path, torch.device("cpu"))
    undisturbed = list(stpt_of(build_trainer(spec, data, Workers(torch.device("cpu")))).epochs())
    assert [(e.learning_rate, e.train_loss, e.val_loss, e.test_accuracy) for e in epochs] == [
        (e.learning_rate, e.train_loss, e.val_loss, e.test_accuracy) for e in undisturbed
    ]


def test_a_cancel_while_workers_start_is_quick(service: Service) -> None:
    """Ray Train listens to SIGINT only once its workers have started; it took 16 s here."""
    with service.client as client:
        job = client.submit({**SPEC, "epochs": 5000})
        wait_until(lambda: trainers(service))
        began = time.monotonic()
        job.cancel()
        assert job.wait().state == "cancelled"
        assert time.monotonic() - began < 12  # 4 on a quiet machine
        wait_until(lambda: not trainers(service), 10)


def trainers(service: Service) -> list[int]:
    """The processes of Ray Train."""
    return of_each(service.process.pid, lambda p: [p.pid] if "TrainController" in "".join(p.cmdline()) else [])


def test_a_job_over_its_time_fails_and_keeps_its_epochs(service: Service) -> None:
    with service.client as client:
        job = client.submit({**SPEC, "epochs": 5000})
        next(event for event in job.follow() if event.kind == "epoch")
        job.change(time_limit=1)
        ended = job.wait()
        assert (ended.state, ended.error and ended.error.code) == ("failed", "time_limit")
        assert ended.epochs_done >= 1
        wait_until(lambda: not trainers(service), 20)
