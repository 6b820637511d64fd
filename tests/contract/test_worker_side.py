"""The worker's routes: only the live attempt may report, and secrets stay secret."""

import json
import logging
from typing import Any

import httpx
import pytest

from api.routes.worker import MAX_REPORT_BYTES
from service.jobs import lifecycle as jobs
from service.store.engine import Store
from service.store.jobs import get_job
from tests.builders import JSON, Worker, claim, epoch_record, spec_document, submit
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]


@pytest.fixture
def job_id(client: httpx.Client) -> str:
    return submit(client)


@pytest.fixture
def worker(client: httpx.Client, sqlite_store: Store, job_id: str) -> Worker:
    return Worker.started(client, claim(sqlite_store))


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert response.headers["Content-Type"] == "application/problem+json"
    return problem


def epochs(client: httpx.Client, job_id: str) -> list[int]:
    return [item["epoch"] for item in client.get(f"/v1/jobs/{job_id}/epochs").json()["items"]]


# --- the ticket ------------------------------------------------------------------------------------


def test_ticket_buys_the_spec(client: httpx.Client, sqlite_store: Store, job_id: str) -> None:
    response = Worker(client, job_id).exchange(claim(sqlite_store).ticket)
    assignment = response.json()
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert (assignment["job_id"], assignment["attempt"]) == (job_id, 1)
    assert json.loads(assignment["spec"])["epochs"] == spec_document()["epochs"]
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "running"


def test_ticket_is_good_once(client: httpx.Client, sqlite_store: Store, job_id: str) -> None:
    ticket = claim(sqlite_store).ticket
    worker = Worker(client, job_id)
    refused(worker.exchange(ticket + "x"), 403, "stale_attempt")
    worker.exchange(ticket).raise_for_status()
    refused(worker.exchange(ticket), 403, "stale_attempt")


def test_ticket_of_a_lost_attempt(client: httpx.Client, sqlite_store: Store, job_id: str) -> None:
    old = claim(sqlite_store)
    jobs.attempt_lost(sqlite_store, job_id, 1, "node died", max_attempts=3)
    new = claim(sqlite_store)
    refused(Worker(client, job_id).exchange(old.ticket), 403, "stale_attempt")
    assert Worker(client, job_id).exchange(new.ticket).json()["attempt"] == 2


def test_ticket_of_another_job(client: httpx.Client, sqlite_store: Store, job_id: str) -> None:
    other = submit(client)
    ticket = claim(sqlite_store).ticket
    claim(sqlite_store)
    refused(Worker(client, other).exchange(ticket), 403, "stale_attempt")
    refused(Worker(client, "none").exchange(ticket), 404, "not_found")


# --- epochs ----------------------------------------------------------------------------------------


def test_repeat_is_accepted_and_changes_nothing(client: httpx.Client, job_id: str, worker: Worker) -> None:
    assert worker.report(epoch_record(1)).status_code == 200
    before = client.get(f"/v1/jobs/{job_id}/epochs/1").json()
    assert worker.report(epoch_record(1)).status_code == 200
    assert client.get(f"/v1/jobs/{job_id}/epochs/1").json() == before


def test_different_record_is_a_conflict(client: httpx.Client, job_id: str, worker: Worker) -> None:
    worker.report(epoch_record(1)).raise_for_status()
    refused(worker.report(epoch_record(1, val_accuracy=0.1)), 409, "record_conflict")
    assert client.get(f"/v1/jobs/{job_id}").json()["val_accuracy"] == 0.5


def test_gap_is_a_conflict(client: httpx.Client, job_id: str, worker: Worker) -> None:
    refused(worker.report(epoch_record(2)), 409, "record_conflict")
    worker.report(epoch_record(1)).raise_for_status()
    refused(worker.report(epoch_record(3)), 409, "record_conflict")
    assert epochs(client, job_id) == [1]


def test_unknown_trial_is_a_conflict(worker: Worker) -> None:
    refused(worker.report(epoch_record(1, trial=2)), 409, "record_conflict")
    refused(worker.report(epoch_record(1, label="sweep")), 409, "record_conflict")


def test_next_attempt_replaces_what_it_does_again(client: httpx.Client, sqlite_store: Store, job_id: str) -> None:
    first = Worker.started(client, claim(sqlite_store))
    for epoch in (1, 2):
        first.report(epoch_record(epoch)).raise_for_status()
    jobs.attempt_lost(sqlite_store, job_id, 1, "node died", max_attempts=3)
    second = Worker.started(client, claim(sqlite_store))
    refused(first.report(epoch_record(3)), 403, "stale_attempt")
    second.report(epoch_record(2, val_accuracy=0.9)).raise_for_status()
    items = client.get(f"/v1/jobs/{job_id}/epochs").json()["items"]
    assert [(item["epoch"], item["attempt"], item["val_accuracy"]) for item in items] == [(1, 1, 0.5), (2, 2, 0.9)]


def test_report_after_a_cancel_is_stale(client: httpx.Client, job_id: str, worker: Worker) -> None:
    worker.report(epoch_record(1)).raise_for_status()
    client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON).raise_for_status()
    refused(worker.report(epoch_record(2)), 403, "stale_attempt")
    refused(worker.finish(), 403, "stale_attempt")
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelling"
    assert epochs(client, job_id) == [1]


# --- heartbeats ------------------------------------------------------------------------------------


def test_a_heartbeat_tells_how_far_the_attempt_is(sqlite_store: Store, job_id: str, worker: Worker) -> None:
    assert worker.beat(iterations=12, waits_for="no space left").json() == {"pause": False}
    assert worker.beat(iterations=12).status_code == 200
    with sqlite_store.read() as session:
        attempt = get_job(session, job_id).last_attempt
    assert attempt is not None
    assert (attempt.iterations, attempt.waits_for) == (12, None)


def test_a_heartbeat_of_another_attempt_is_stale(
    client: httpx.Client, sqlite_store: Store, job_id: str, worker: Worker
) -> None:
    worker.token += "x"
    refused(worker.beat(iterations=1), 403, "stale_attempt")
    worker.token = worker.token[:-1]
    jobs.attempt_lost(sqlite_store, job_id, 1, "node died", max_attempts=3)
    refused(worker.beat(iterations=1), 403, "stale_attempt")


@pytest.mark.parametrize(
    ("beat", "field"),
    [
        ({"iterations": -1}, "iterations"),
        ({"iterations": 2**63}, "iterations"),
        ({"waits_for": ""}, "waits_for"),
        ({"waits_for": "x" * 1001}, "waits_for"),
        ({"alive": True}, "alive"),
    ],
)
def test_wrong_heartbeats(worker: Worker, beat: dict[str, Any], field: str) -> None:
    problem = refused(worker.beat(**beat), 422, "invalid_input")
    assert [error["field"] for error in problem["errors"]] == [field]


# --- the outcome -----------------------------------------------------------------------------------


def test_outcome_twice(client: httpx.Client, fleet: FakeFleet, job_id: str, worker: Worker) -> None:
    for epoch in (1, 2, 3):
        worker.report(epoch_record(epoch)).raise_for_status()
    wakes = fleet.wakes
    assert worker.finish().status_code == 204
    assert fleet.wakes == wakes + 1
    before = client.get(f"/v1/jobs/{job_id}").json()
    assert worker.finish().status_code == 204
    assert client.get(f"/v1/jobs/{job_id}").json() == before
    refused(worker.finish(state="failed", code="diverged", message="no"), 403, "stale_attempt")
    refused(worker.report(epoch_record(3, val_accuracy=0.1)), 403, "stale_attempt")


def test_success_needs_every_epoch(client: httpx.Client, job_id: str, worker: Worker) -> None:
    worker.report(epoch_record(1)).raise_for_status()
    problem = refused(worker.finish(), 409, "record_conflict")
    assert "1 of 3 epochs" in problem["detail"]
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "running"


# --- the door --------------------------------------------------------------------------------------


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic d3Jvbmc=", "wrong"])
def test_wrong_tokens(client: httpx.Client, worker: Worker, job_id: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    documents = {"epochs": epoch_record(1), "heartbeat": {"iterations": 1}, "outcome": {"state": "succeeded"}}
    for what, document in documents.items():
        response = client.post(f"/internal/jobs/{job_id}/{what}", json=document, headers=headers)
        refused(response, 403, "stale_attempt")
    assert epochs(client, job_id) == []


# the changes to a valid record, and the field that is named
WRONG_RECORDS: dict[str, tuple[dict[str, Any], str]] = {
    "epoch 0": ({"epoch": 0}, "epoch"),
    "accuracy over 1": ({"val_accuracy": 1.5}, "val_accuracy"),
    "accuracy NaN": ({"val_accuracy": float("nan")}, "val_accuracy"),
    "infinite loss": ({"train_loss": float("inf")}, "train_loss"),
    "unknown key": ({"extra": 1}, "extra"),
    "branch number": ({"branches": [{"number": 0}]}, "branches[0].number"),
    "no branch chosen": ({"branches": []}, "body"),
    "samples over 64 bits": ({"samples": 2**70}, "samples"),
    "epoch over 32 bits": ({"epoch": 2**31}, "epoch"),
}


@pytest.mark.parametrize(("changes", "field"), WRONG_RECORDS.values(), ids=WRONG_RECORDS)
def test_wrong_records(client: httpx.Client, job_id: str, worker: Worker, changes: dict[str, Any], field: str) -> None:
    headers = {"Authorization": f"Bearer {worker.token}", "Content-Type": "application/json"}
    body = json.dumps(epoch_record(1) | changes)
    problem = refused(
        client.post(f"/internal/jobs/{job_id}/epochs", content=body, headers=headers), 422, "invalid_input"
    )
    assert field in [error["field"] for error in problem["errors"]]


def test_wrong_outcome(worker: Worker) -> None:
    refused(worker.finish(state="cancelled"), 422, "invalid_input")
    refused(worker.finish(state="failed"), 422, "invalid_input")


@pytest.mark.parametrize("what", ["ticket", "epochs", "heartbeat", "outcome"])
def test_body_limits(client: httpx.Client, job_id: str, worker: Worker, what: str) -> None:
    headers = {"Authorization": f"Bearer {worker.token}", "Content-Type": "application/json"}
    path = f"/internal/jobs/{job_id}/{what}"
    too_long = client.post(path, content=b" " * (MAX_REPORT_BYTES + 1), headers=headers)
    assert f"it may have {MAX_REPORT_BYTES} at most" in refused(too_long, 413, "content_too_large")["detail"]
    refused(
        client.post(path, content=b"{}", headers=headers | {"Content-Type": "text/plain"}),
        415,
        "unsupported_media_type",
    )


def test_full_record_fits(worker: Worker) -> None:
    branch = epoch_record(1)["branches"][0]
    lost = [branch | {"number": 1 + i, "state": "lost", "learning_rate": 0.123456789012345} for i in range(64 * 11 - 1)]
    record = epoch_record(1, branches=[*lost, branch | {"number": 64 * 11}])
    assert worker.report(record).status_code == 200


def test_secrets_are_not_repeated(
    client: httpx.Client, sqlite_store: Store, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ticket = claim(sqlite_store).ticket
    worker = Worker(client, job_id)
    answers = [
        client.post(f"/internal/jobs/{job_id}/ticket", json=document)
        for document in ({"ticket": [ticket]}, {"ticket": ticket, "more": 1}, [ticket], {"tickt": ticket})
    ]
    json_type = {"Content-Type": "application/json"}
    answers.append(client.post(f"/internal/jobs/{job_id}/ticket", content=f'{{"ticket": "{ticket}', headers=json_type))
    worker.token = worker.exchange(ticket).json()["report_token"]
    answers += [worker.exchange(ticket), worker.report({}), worker.report(epoch_record(2)), worker.finish()]
    assert {answer.status_code for answer in answers} == {403, 409, 422}
    for secret in (ticket, worker.token):
        assert not [answer.text for answer in answers if secret in answer.text]
        assert secret not in caplog.text
        assert secret not in client.get(f"/v1/jobs/{job_id}").text


def test_worker_routes_are_not_public(client: httpx.Client) -> None:
    assert "/internal" not in client.get("/openapi.json").text
