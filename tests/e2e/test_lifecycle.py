"""A job's life on the real thing: paused and resumed, cancelled while its workers start, retried, deleted."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from forerun.client import ApiError, Client
from forerun.jobs import JobHandle
from service.spec.job import JobSpec
from service.wire.answers import Epoch
from service.wire.worker import EpochRecord
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
    assert results(epochs) == undisturbed(tmp_path)


def results(epochs: Iterable[Epoch | EpochRecord]) -> list[tuple[float | None, ...]]:
    return [(e.learning_rate, e.train_loss, e.val_loss, e.test_accuracy) for e in epochs]


def undisturbed(data_dir: Path) -> list[tuple[float | None, ...]]:
    """The results of the epochs of SPEC, trained without a service."""
    spec = JobSpec.model_validate(SPEC)
    data = load_data(spec.dataset, data_dir, torch.device("cpu"))
    return results(stpt_of(build_trainer(spec, data, Workers(torch.device("cpu")))).epochs())


def test_a_retry_goes_on_bit_for_bit_and_both_can_be_deleted(service: Service, tmp_path: Path) -> None:
    with service.client as client:
        job = client.submit(SPEC)
        for event in job.follow():
            if event.kind == "epoch" and event.epoch == 2:
                job.cancel()
        assert job.refresh().state == "cancelled"
        again = client.retry(job.id)
        assert again.answer.epochs_done >= 2
        ended = again.wait()
        assert ended.state == "succeeded", ended.error
        epochs = again.epochs()
        assert [epoch.attempt for epoch in epochs][:2] == [0, 0]
        assert epochs[-1].attempt == 1
        assert results(epochs) == undisturbed(tmp_path)
        assert list(again.download_weights(tmp_path / "weights.safetensors").parent.iterdir())
        for one in (job, again):
            wait_until(lambda one=one: deleted(one), 60)
            with pytest.raises(ApiError, match="there is no job"):
                one.refresh()
    assert not [path for path in (service.home / "jobs").iterdir() if job.id in path.name or again.id in path.name]


def deleted(job: JobHandle) -> bool:
    """Whether the job could be deleted: Ray may have to confirm its end first."""
    try:
        job.delete()
    except ApiError as error:
        if error.code != "state_conflict":
            raise
        return False
    return True


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
