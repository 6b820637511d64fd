"""Pause, resume, retry, other terms and deletion over HTTP, and what a job says of why it waits."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from api.deps import Services
from service.cluster.base import Capacity
from service.jobs import lifecycle as jobs
from service.jobs.pause import confirm_paused
from service.store import clock as database_clock
from service.store.engine import Store
from service.store.tables import Job
from tests.builders import JSON, Worker, claim, epoch_record, run_to_success, spec_document, submit
from tests.contract.conftest import FakeFleet
from tests.contract.test_jobs import counted_statements

pytest_plugins = ["tests.databases"]


def state(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["state"]


def reason(client: httpx.Client, job_id: str) -> tuple[str | None, int | None]:
    job = client.get(f"/v1/jobs/{job_id}").json()
    return job["reason"], job["queue_position"]


# --- pause and resume --------------------------------------------------------------------------------


def test_a_job_is_paused_behind_an_epoch_and_resumed(
    client: httpx.Client, sqlite_store: Store, fleet: FakeFleet
) -> None:
    job_id = submit(client)
    worker = Worker.started(client, claim(sqlite_store))
    assert worker.report(epoch_record(1)).json() == {"pause": False}
    assert state(client.post(f"/v1/jobs/{job_id}/pause", headers=JSON)) == (202, "pausing")
    assert worker.report(epoch_record(2)).json() == {"pause": True}
    assert reason(client, job_id) == ("pauses behind its next epoch, or its search's next report", None)
    assert worker.finish(state="paused").status_code == 204
    confirm_paused(sqlite_store, job_id)  # as the controller does when Ray says so
    assert reason(client, job_id) == ("paused by its user", None)
    wakes = fleet.wakes
    assert state(client.post(f"/v1/jobs/{job_id}/resume", headers=JSON)) == (202, "queued")
    assert fleet.wakes == wakes + 1
    worker = Worker.started(client, claim(sqlite_store))
    assert worker.report(epoch_record(3)).json() == {"pause": False}
    worker.finish().raise_for_status()
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"


def test_what_cannot_be_asked_of_a_job(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = run_to_success(client, sqlite_store)
    for path in ("pause", "resume", "retry"):
        response = client.post(f"/v1/jobs/{job_id}/{path}", headers=JSON)
        assert (response.status_code, response.json()["code"]) == (409, "state_conflict"), path
        assert client.post(f"/v1/jobs/job-0/{path}", headers=JSON).status_code == 404
    assert client.patch(f"/v1/jobs/{job_id}", json={"priority": 1}).status_code == 409
    assert client.patch("/v1/jobs/job-0", json={"priority": 1}).status_code == 404
    assert client.delete("/v1/jobs/job-0", headers=JSON).status_code == 404


# --- terms -------------------------------------------------------------------------------------------


def test_terms_are_no_part_of_the_spec(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "key-1"}
    params = {"priority": 7, "time_limit": 60}
    job = client.post("/v1/jobs", params=params, json=spec_document(), headers=key).raise_for_status().json()
    assert (job["priority"], job["time_limit"]) == (7, 60)
    assert "priority" not in job["spec"]
    again = client.post("/v1/jobs", json=spec_document(), headers=key).raise_for_status().json()
    assert (again["id"], again["priority"]) == (job["id"], 7)
    changed = client.patch(f"/v1/jobs/{job['id']}", json={"priority": -100}).raise_for_status().json()
    assert (changed["priority"], changed["time_limit"]) == (-100, 60)
    changed = client.patch(f"/v1/jobs/{job['id']}", json={"time_limit": None}).raise_for_status().json()
    assert (changed["priority"], changed["time_limit"]) == (-100, None)
    assert client.patch(f"/v1/jobs/{job['id']}", json={}).raise_for_status().json() == changed


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": -101}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"priority": None}, "priority"),
        ({"time_limit": 0}, "time_limit"),
        ({"time_limit": 2**31}, "time_limit"),
        ({"prority": 1}, "prority"),
    ],
)
def test_wrong_terms(client: httpx.Client, change: dict[str, object], field: str) -> None:
    job_id = submit(client)
    response = client.patch(f"/v1/jobs/{job_id}", json=change)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_wrong_terms_of_a_new_job(client: httpx.Client) -> None:
    for params in ({"priority": 101}, {"time_limit": 0}):
        response = client.post("/v1/jobs", params=params, json=spec_document())
        assert response.status_code == 422
        assert [error["field"] for error in response.json()["errors"]] == list(params)


def test_an_experiment_has_terms(client: httpx.Client) -> None:
    request = {"name": "alpha-sweep", "spec": {"dataset": "digits", "epochs": 1}, "priority": 3, "time_limit": 60}
    response = client.post("/v1/experiments", json=request)
    assert response.status_code == 202, response.json()
    assert {(job["priority"], job["time_limit"]) for job in response.json()["items"]} == {(3, 60)}


# --- reasons -----------------------------------------------------------------------------------------


def test_why_a_job_waits(client: httpx.Client, sqlite_store: Store, fleet: FakeFleet) -> None:
    assert reason(client, submit(client, workers=2)) == ("is submitted next", 1)
    fleet.capacity = Capacity(cpus=4, gpus=0)
    running = claim(sqlite_store).job_id
    assert reason(client, running) == ("the workers of attempt 1 start", None)
    first, second = submit(client, workers=4), submit(client)
    third = submit(client)
    assert reason(client, first) == ("waits for 4 CPUs, 2 are free", 1)
    assert reason(client, second) == ("1 job is before it, of higher or equal priority", 2)
    assert reason(client, third) == ("2 jobs are before it, of higher or equal priority", 3)
    client.patch(f"/v1/jobs/{third}", json={"priority": 1}).raise_for_status()
    assert reason(client, third) == ("is submitted next", 1)
    assert reason(client, first) == ("1 job is before it, of higher or equal priority", 2)
    fleet.capacity = Capacity(cpus=2, gpus=3)
    assert reason(client, first) == ("waits for 4 GPUs, the cluster has 3", None)
    assert reason(client, second) == ("1 job is before it, of higher or equal priority", 2)
    fleet.trouble = "No answer from Ray."
    assert reason(client, second) == ("nothing can be submitted at present: No answer from Ray.", 2)
    jobs.cancel(sqlite_store, running)
    assert reason(client, running) == ("its workers are being ended", None)


def test_what_a_running_job_waits_for(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client)
    worker = Worker.started(client, claim(sqlite_store))
    assert reason(client, job_id) == (None, None)
    waits = {"iterations": 7, "waits_for": "a disk that can be written: /jobs (No space left on device)"}
    assert worker.beat(**waits).json() == {"pause": False}
    told = "waits for a disk that can be written: /jobs (No space left on device)"
    assert reason(client, job_id) == (told, None)
    client.post(f"/v1/jobs/{job_id}/pause", json={}).raise_for_status()
    assert worker.beat(**waits).json() == {"pause": True}
    assert reason(client, job_id) == (f"pauses behind its next epoch, or its search's next report; {told}", None)
    worker.beat(iterations=8)
    assert reason(client, job_id) == ("pauses behind its next epoch, or its search's next report", None)


def test_reasons_of_many_jobs_take_as_many_queries_as_of_one(client: httpx.Client, fleet: FakeFleet) -> None:
    fleet.capacity = Capacity(cpus=4, gpus=0)
    submit(client)
    with counted_statements() as one:
        client.get("/v1/jobs").raise_for_status()
    for _ in range(20):
        submit(client)
    with counted_statements() as many:
        listed = client.get("/v1/jobs").raise_for_status().json()["items"]
    assert [job["queue_position"] for job in listed] == list(range(21, 0, -1))
    assert len(many) == len(one)


def test_why_a_job_is_tried_again(
    client: httpx.Client, sqlite_store: Store, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.capacity = Capacity(cpus=4, gpus=0)
    monkeypatch.setattr(database_clock, "database_time", lambda _: datetime(2026, 1, 1, 12, 2, 30, tzinfo=UTC))
    job_id = submit(client)
    Worker.started(client, claim(sqlite_store))
    assert reason(client, job_id) == (None, None)
    jobs.attempt_lost(sqlite_store, job_id, 1, "node died", max_attempts=3)
    with sqlite_store.write() as session:
        session.execute(update(Job).values(not_before=datetime(2026, 1, 1, 12, 3, tzinfo=UTC)))
    told = "is tried again at 12:03:00 UTC after attempt 1 was lost: node died"
    assert reason(client, job_id) == (told, None)
    with sqlite_store.write() as session:  # its backoff is over
        session.execute(update(Job).values(not_before=None))
    assert reason(client, job_id) == ("is tried again after attempt 1 was lost: node died; is submitted next", 1)
    claim(sqlite_store)
    jobs.attempt_interrupted(sqlite_store, job_id, 2)
    told = "is tried again after attempt 2 ended: the service was stopped; is submitted next"
    assert reason(client, job_id) == (told, 1)


def test_a_job_that_is_resumed_while_its_backoff_goes_on_says_so(
    client: httpx.Client, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_clock, "database_time", lambda _: datetime(2026, 1, 1, 12, 2, 30, tzinfo=UTC))
    monkeypatch.setattr(jobs, "backoff_seconds", lambda *_: 30.0)
    job_id = submit(client)
    Worker.started(client, claim(sqlite_store))
    jobs.attempt_lost(sqlite_store, job_id, 1, "node died", max_attempts=3)
    for request in ("pause", "resume"):
        client.post(f"/v1/jobs/{job_id}/{request}", json={}).raise_for_status()
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"
    told = "is tried again at 12:03:00 UTC after attempt 1 was lost: node died"
    assert reason(client, job_id) == (told, None)


# --- retry and deletion --------------------------------------------------------------------------------


def test_a_retry_is_a_new_job(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client)
    worker = Worker.started(client, claim(sqlite_store))
    worker.report(epoch_record(1)).raise_for_status()
    worker.finish(state="failed", code="diverged", message="every branch did").raise_for_status()
    before = client.get(f"/v1/jobs/{job_id}").json()
    key = JSON | {"Idempotency-Key": "again"}
    response = client.post(f"/v1/jobs/{job_id}/retry", headers=key)
    job = response.json()
    assert state(response) == (202, "queued")
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["retry_of"], job["epochs_done"], job["attempt"]) == (job_id, 1, 0)
    assert client.post(f"/v1/jobs/{job_id}/retry", headers=key).json()["id"] == job["id"]
    assert client.get(f"/v1/jobs/{job_id}").json() == before
    assert client.get(f"/v1/jobs/{job['id']}/epochs").json()["items"][0]["epoch"] == 1


def test_a_deleted_job_is_gone(client: httpx.Client, sqlite_store: Store, services: Services) -> None:
    job_id = run_to_success(client, sqlite_store)
    response = client.delete(f"/v1/jobs/{job_id}", headers=JSON)
    assert (response.status_code, response.json()["code"]) == (409, "state_conflict")  # its process may yet run
    jobs.keep_log(sqlite_store, f"{job_id}-a1", "it trains\n")
    folder: Path = services.storage_dir / job_id
    folder.mkdir(parents=True)
    assert client.delete(f"/v1/jobs/{job_id}", headers=JSON).status_code == 204
    assert not folder.exists()
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert client.delete(f"/v1/jobs/{job_id}", headers=JSON).status_code == 204  # the answer may have been lost
