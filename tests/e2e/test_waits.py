"""What keeps a job from training, for real: it waits and says so, or is ended and goes on, and never fails for it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from forerun.errors import ApiError
from forerun.jobs import JobHandle
from service.store.engine import Store
from service.store.jobs import get_job
from service.wire.states import EndReason
from tests.disks import fill
from tests.e2e.service import Service, running_service
from tests.processes import of_each, wait_until

pytest_plugins = ["tests.disks"]

SPEC: dict[str, Any] = {
    "model": "lenet5",
    "dataset": "digits",
    "epochs": 5000,
    "workers": 1,
    "lr_set": {"learning_rates": [0.1, 0.05]},
}


def processes(service: Service, kind: str) -> list[psutil.Process]:
    """The actors of Ray Train of that kind."""
    return of_each(service.process.pid, lambda p: [p] if kind in "".join(p.cmdline()) else [])


def wait_for_epoch(job: JobHandle, epoch: int) -> None:
    """Wait until that epoch of the job is recorded."""
    next(event for event in job.follow() if event.kind == "epoch" and event.epoch == epoch)


def end_reasons(service: Service, job: JobHandle) -> list[EndReason | None]:
    store = Store(f"sqlite:///{service.home / 'forerun.db'}")
    with store.read() as session:
        attempts = get_job(session, job.id).attempts
    store.close()
    return [attempt.reason for attempt in attempts]


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_stopped_service_does_not_slow_training(service: Service) -> None:
    """With reports inside the loop six epochs took a minute, instead of half a second each."""
    with service.client as client:
        job = client.submit(SPEC)
        wait_for_epoch(job, 1)
        spool = service.home / "jobs" / f"{job.id}-a1" / "spool"
        with stopped(service.process.pid):
            wait_until(lambda: len(list(spool.glob("[!.]*-epochs.json"))) >= 10, 30)
        waited = len(list(spool.glob("[!.]*.json")))
        wait_until(lambda: job.refresh().epochs_done > waited)
        job.cancel()
        assert job.wait().state == "cancelled"
        assert [epoch.epoch for epoch in job.epochs()] == list(range(1, job.refresh().epochs_done + 1))
        assert job.refresh().attempt == 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_full_disk_is_waited_for(tmp_path: Path, disk_of_32_mib: Path) -> None:
    """A job may have one attempt, and keeps it through a disk that fills up in its training."""
    environment = {"FORERUN_JOBS_DIR": str(disk_of_32_mib), "FORERUN_MAX_ATTEMPTS": "1", "FORERUN_RAY_NUM_CPUS": "1"}
    with running_service(tmp_path / "home", **environment) as service, service.client as client:
        job = client.submit(SPEC | {"epochs": 60})
        wait_for_epoch(job, 2)
        full = fill(disk_of_32_mib)
        reason = wait_until(lambda: job.refresh().reason)
        assert reason.startswith(f"waits for a disk that can be written: {disk_of_32_mib}")
        assert reason.endswith("(No space left on device)")
        assert job.answer.state == "running"
        full.unlink()
        wait_until(lambda: job.refresh().reason is None)
        ended = job.wait()
        assert (ended.state, ended.attempt, ended.epochs_done) == ("succeeded", 1, 60), ended.error


@pytest.mark.long
@pytest.mark.timeout(600)  # a floor that the start of a job fits into, and as long again
def test_what_hangs_is_ended_and_goes_on(tmp_path: Path) -> None:
    """A worker and a controller of Ray Train that are stopped."""
    environment = {"FORERUN_HANG_SECONDS": "60", "FORERUN_RAY_NUM_CPUS": "2"}
    with running_service(tmp_path / "home", **environment) as service, service.client as client:
        jobs = []
        for kind in ("RayTrainWorker", "TrainController"):
            others = {process.pid for process in processes(service, kind)}
            jobs.append(client.submit(SPEC))
            wait_for_epoch(jobs[-1], 2)
            [process] = [process for process in processes(service, kind) if process.pid not in others]
            process.suspend()
        for job in jobs:
            wait_until(lambda job=job: any(epoch.attempt == 2 for epoch in job.epochs()), 300)
            assert end_reasons(service, job) == [EndReason.HUNG, None]
            job.cancel()
        for job in jobs:
            job.wait()
        wait_until(lambda: not processes(service, "RayTrainWorker"))


def test_an_image_that_became_a_fifo_ends_the_job_at_once(service: Service, data_dir: Path) -> None:
    """A thread waited for ever for somebody to write to it."""
    write_images(data_dir / "tree")
    with service.client as client:
        spec = SPEC | {"dataset": {"name": "image-folder", "path": "tree", "image_size": 32}}
        job = client.submit(spec)
        image = data_dir / "tree" / "train" / "a" / "0.png"
        image.unlink()
        os.mkfifo(image)
        ended = job.wait()
        assert (ended.state, ended.attempt) == ("failed", 1)
        assert ended.error is not None
        assert f"{image} is no regular file" in ended.error.message
        with pytest.raises(ApiError, match="is no regular file"):
            client.submit(spec)


def test_what_a_service_and_its_jobs_write_is_for_its_account_alone(service: Service) -> None:
    with service.client as client:
        assert client.submit(SPEC | {"epochs": 2}).wait().state == "succeeded"
    files = [service.home, *(path for path in service.home.rglob("*") if path.name != "service.log")]  # the test's own
    assert {"forerun.db", "state.safetensors", "manifest.json", "ray-token"} <= {path.name for path in files}
    assert [(path, oct(path.stat().st_mode)) for path in files if path.stat().st_mode & 0o077] == []


def write_images(tree: Path) -> None:
    """Two classes of grey images, 40 of each to train and 4 to test."""
    for split, images in (("train", 40), ("test", 4)):
        for name, grey in (("a", 50), ("b", 200)):
            folder = tree / split / name
            folder.mkdir(parents=True)
            for number in range(images):
                Image.new("L", (32, 32), grey + number).save(folder / f"{number}.png")
