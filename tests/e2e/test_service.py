"""The service as a process: several on one machine, kill -9 in the middle of a job, PostgreSQL, the demo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
import torch

from service.spec.job import JobSpec
from service.store.engine import Store
from service.store.epochs import epochs_of
from service.store.jobs import get_job
from service.wire.states import EndReason
from tests.databases import Postgres
from tests.e2e.service import Service, running_service
from tests.processes import of_each, wait_until
from tests.unit.workers.ranks import stpt_of
from workers.build import build_trainer
from workers.datasets.load import load_data
from workers.engine.groups import Workers

pytest_plugins = ["tests.databases"]

SPEC: dict[str, Any] = {
    "model": "lenet5",
    "dataset": "digits",
    "epochs": 24,
    "workers": 1,
    "lr_set": {"learning_rates": [0.1, 0.05]},
}


@pytest.mark.long
@pytest.mark.timeout(600)  # three attempts, each with the imports of a driver and a worker
def test_a_killed_service_takes_its_jobs_up_again_on_postgresql(
    service: Service, tmp_path: Path, postgres: Postgres
) -> None:
    """Beside the first service, on a database server: `kill -9` in mid-job, a new start, and the job goes on.

    Later a `kill -9` of its Ray worker, and it goes on again. It ends bit for bit as one that nobody disturbed.
    """
    with postgres.database() as store:
        url = store.url.render_as_string(hide_password=False)
        job_id = _survive_a_kill(service, tmp_path / "home", FORERUN_DATABASE_URL=url, FORERUN_RAY_NUM_CPUS="1")
        with store.read() as session:
            epochs = epochs_of(session, job_id)
            assert [epoch.epoch for epoch in epochs] == list(range(1, 25))
            attempts = [epoch.attempt for epoch in epochs]
            assert attempts == sorted(attempts)
            assert set(attempts) == {1, 2, 3}
            spec = JobSpec.model_validate(SPEC)
            data = load_data(spec.dataset, tmp_path, torch.device("cpu"))
            undisturbed = list(stpt_of(build_trainer(spec, data, Workers(torch.device("cpu")))).epochs())
            assert [(e.learning_rate, e.train_loss, e.val_loss, e.test_accuracy) for e in epochs] == [
                (e.learning_rate, e.train_loss, e.val_loss, e.test_accuracy) for e in undisturbed
            ]


def _survive_a_kill(service: Service, home: Path, **environment: str) -> str:
    with running_service(home, **environment) as second:
        assert second.url != service.url
        assert second.dashboard_url != service.dashboard_url
        other = httpx.get(f"{second.dashboard_url}/api/jobs/", headers={"Authorization": f"Bearer {service.token}"})
        assert other.status_code == 403  # the token of one opens nothing at the other
        with second.client as client:
            job_id = client.submit(SPEC).id
            next(e for e in client.events(job_id) if e.kind == "epoch" and e.epoch == 3)
        second.stop(signal.SIGKILL)
    assert httpx.get(f"{service.url}/readyz").status_code == 200
    with running_service(home, **environment) as second, second.client as client:
        next(e for e in client.events(job_id) if e.kind == "epoch" and e.attempt == 2)
        # what the worker was doing then: whatever it was
        [worker] = of_each(second.process.pid, lambda p: [p] if "RayTrainWorker" in "".join(p.cmdline()) else [])
        worker.kill()
        job = client.wait(job_id)
        states = [event.state for event in client.events(job_id) if event.kind == "state"]
    assert job.state == "succeeded", job.error
    assert job.attempt == 3
    lost = ["recovering", "submitting", "running"]
    assert states == ["queued", "submitting", "running", *lost, *lost, "succeeded"]
    return job_id


@pytest.mark.long
@pytest.mark.timeout(600)  # two services, and two attempts with the imports of a driver and a worker
def test_of_two_services_on_one_postgresql_the_second_takes_over_when_the_first_is_killed(
    tmp_path: Path, postgres: Postgres
) -> None:
    """A job that is submitted to the one that stands by trains at the leader; when that is killed the other goes on."""
    with postgres.database() as store:
        url = store.url.render_as_string(hide_password=False)
        environment = {"FORERUN_DATABASE_URL": url, "FORERUN_RAY_NUM_CPUS": "1"}
        environment["FORERUN_JOBS_DIR"] = str(tmp_path / "jobs")
        with running_service(tmp_path / "first", **environment) as first:
            wait_until(lambda: leadership(first)["leads"])
            with running_service(tmp_path / "second", **environment) as second, second.client as client:
                wait_until(lambda: leadership(second) == {"leads": False, "url": first.url})
                job_id = client.submit(SPEC).id
                next(e for e in client.events(job_id) if e.kind == "epoch" and e.epoch == 2)
                killed = time.monotonic()
                first.stop(signal.SIGKILL)
                wait_until(lambda: leadership(second) == {"leads": True, "url": second.url})
                print(f"the second leads {time.monotonic() - killed:.1f} s after the first was killed")
                job = client.wait(job_id)
                assert (job.state, job.attempt) == ("succeeded", 2), job.error
        with store.read() as session:
            assert [attempt.reason for attempt in get_job(session, job_id).attempts] == [EndReason.CLUSTER_LOST, None]
            assert [epoch.attempt for epoch in epochs_of(session, job_id)][:2] == [1, 1]  # it went on from a checkpoint


@pytest.mark.long
@pytest.mark.timeout(600)  # two starts of a head, and two attempts
def test_a_ray_head_that_dies_costs_a_job_no_attempt(tmp_path: Path) -> None:
    """One attempt is all that the job has; the dashboard is killed, with which the head ends."""
    with running_service(tmp_path / "home", FORERUN_MAX_ATTEMPTS="1", FORERUN_RAY_NUM_CPUS="1") as service:
        with service.client as client:
            job_id = client.submit(SPEC).id
            next(e for e in client.events(job_id) if e.kind == "epoch" and e.epoch == 2)
            [dashboard] = of_each(service.process.pid, lambda p: [p] if is_dashboard(p) else [])
            dashboard.kill()
            job = client.wait(job_id)
            assert (job.state, job.attempt) == ("succeeded", 2), job.error
        store = Store(f"sqlite:///{service.home / 'forerun.db'}")
        with store.read() as session:
            assert [attempt.reason for attempt in get_job(session, job_id).attempts] == [EndReason.CLUSTER_LOST, None]
        store.close()


def is_dashboard(process: psutil.Process) -> bool:
    return any(word.endswith("dashboard/dashboard.py") for word in process.cmdline())


def leadership(service: Service) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{service.url}/readyz").json()["leadership"]
    return answer


def test_an_existing_cluster_is_used_by_its_address(service: Service, tmp_path: Path) -> None:
    """The first service's cluster as the existing one; its data folder cannot be looked into from the door."""
    environment = {
        "FORERUN_RAY_ADDRESS": service.dashboard_url,
        "FORERUN_RAY_TOKEN": service.token,
        "FORERUN_RAY_PYTHON": sys.executable,
        "FORERUN_DATA_DIR": str(tmp_path / "nothing-here"),
    }
    with running_service(tmp_path / "home", **environment) as guest, guest.client as client:
        assert guest.dashboard_url == service.dashboard_url
        small = SPEC | {"epochs": 1}
        missing, good = client.submit(small | {"dataset": "mnist"}), client.submit(small)
        missing, good = client.wait(missing.id), client.wait(good.id)
        assert missing.error is not None
        assert missing.error.code == "dataset_missing"
        assert str(tmp_path / "nothing-here" / "MNIST") in missing.error.message
        assert "download to true" in missing.error.message
        assert good.state == "succeeded", good.error
    headers = {"Authorization": f"Bearer {service.token}"}
    assert httpx.get(f"{service.dashboard_url}/api/jobs/{good.id}-a1", headers=headers).status_code == 200


def test_a_home_has_one_service(service: Service) -> None:
    environment = {**os.environ, "FORERUN_HOME": str(service.home)}
    second = subprocess.run(
        [sys.executable, "-m", "api"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert second.returncode == 2
    assert second.stderr.strip() == (
        f"forerun: another service runs with the home {service.home}; stop it or set FORERUN_HOME"
    )
    assert (service.home / "service.json").exists()
