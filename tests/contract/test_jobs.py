"""GET /v1/jobs and its pages, GET and cancel of one job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from service.jobs import lifecycle as jobs
from service.store.engine import Store
from tests.builders import JSON, Worker, claim, epoch_record, run_to_success, submit
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]


def ids(response: httpx.Response) -> list[str]:
    return [job["id"] for job in response.raise_for_status().json()["items"]]


# --- one job ---------------------------------------------------------------------------------------


def test_job_shows_its_progress(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client)
    attempt = claim(sqlite_store)
    worker = Worker.started(client, attempt)
    worker.report(epoch_record(1)).raise_for_status()
    worker.report(epoch_record(2, learning_rate=0.1)).raise_for_status()
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["attempt"], job["epochs"], job["epochs_done"]) == ("running", 1, 3, 2)
    assert (job["learning_rate"], job["val_accuracy"], job["test_accuracy"]) == (0.1, 0.75, 0.7)
    assert job["submission_id"] == attempt.submission_id
    assert job["links"] == {
        "self": f"/v1/jobs/{job_id}",
        "epochs": f"/v1/jobs/{job_id}/epochs",
        "lr_history": f"/v1/jobs/{job_id}/lr-history",
        "events": f"/v1/jobs/{job_id}/events",
        "ray_dashboard": f"http://ray.test:8265/#/jobs/{attempt.submission_id}",
    }
    assert job["started_at"].endswith("Z")
    assert job["finished_at"] is None


def test_links_lead_somewhere(client: httpx.Client, sqlite_store: Store) -> None:
    links = client.get(f"/v1/jobs/{run_to_success(client, sqlite_store)}").json()["links"]
    for name in ("self", "epochs", "lr_history", "events"):
        assert client.get(links[name]).status_code == 200


def test_failed_job_says_why(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client)
    worker = Worker.started(client, claim(sqlite_store))
    worker.finish(state="failed", code="diverged", message="every branch of epoch 1 diverged").raise_for_status()
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "failed"
    assert job["error"] == {"code": "diverged", "message": "every branch of epoch 1 diverged"}
    assert job["finished_at"].endswith("Z")


def test_job_of_several_methods(client: httpx.Client, sqlite_store: Store) -> None:
    methods = ["reference", {"name": "sweep", "learning_rates": [0.2, 0.1]}]
    job_id = submit(client, experiment="a study", methods=methods)
    worker = Worker.started(client, claim(sqlite_store))
    scheduled = {"phase": "scheduled", "branches": []}
    for number in (1, 2):
        worker.report(epoch_record(number, **scheduled, label="sweep", trial=2)).raise_for_status()
    worker.report(epoch_record(1, **scheduled, label="reference", learning_rate=0.3)).raise_for_status()
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["experiment"], job["epochs"], job["trials"]) == ("a study", 3, 3)
    assert (job["epochs_done"], job["learning_rate"], job["val_accuracy"]) == (1, 0.3, 0.5)  # of the first training
    response = worker.finish()
    assert (response.status_code, response.json()["code"]) == (409, "record_conflict")
    assert "has 1 of 3 epochs of reference 1 recorded" in response.json()["detail"]


def test_a_training_within_a_budget_counts_its_own_epochs(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client, methods=["cosine", "reference"], budget={"epochs": 4})
    worker = Worker.started(client, claim(sqlite_store))
    assert client.get(f"/v1/jobs/{job_id}").json()["epochs"] == 3  # until it is known
    begun = {"label": "cosine", "trial": 1, "seed": 0, "epochs": 4, "state": "running"}
    worker.report_trial(begun).raise_for_status()
    worker.report(epoch_record(1, label="cosine", phase="scheduled", branches=[])).raise_for_status()
    other = submit(client, methods=["asha"], budget={"epochs": 4})
    listed = client.get("/v1/jobs").json()["items"]
    assert [(job["id"], job["epochs_done"], job["epochs"]) for job in listed] == [(other, 0, 3), (job_id, 1, 4)]


# --- cancel ----------------------------------------------------------------------------------------


def test_cancel_before_it_began(client: httpx.Client, fleet: FakeFleet) -> None:
    job_id = submit(client)
    response = client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON)
    assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    assert client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON).json() == response.json()  # again: the same
    assert fleet.wakes == 3


def test_cancel_while_it_runs(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client)
    Worker.started(client, claim(sqlite_store))
    assert client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON).json()["state"] == "cancelling"
    jobs.confirm_cancelled(sqlite_store, job_id)
    assert client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON).json()["state"] == "cancelled"


def test_cancel_after_the_end(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = run_to_success(client, sqlite_store)
    response = client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON)
    assert (response.status_code, response.json()["code"]) == (409, "state_conflict")
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"


# --- the list --------------------------------------------------------------------------------------


def test_filters(client: httpx.Client, sqlite_store: Store) -> None:
    done = run_to_success(client, sqlite_store, name="done")
    queued = submit(client, name="queued, really", model="resnet18", experiment="a study")
    cancelled = submit(client, name="", model="resnet18")
    client.post(f"/v1/jobs/{cancelled}/cancel", headers=JSON)
    expected: list[tuple[Any, list[str]]] = [
        ({}, [cancelled, queued, done]),
        ({"state": "succeeded"}, [done]),
        ({"state": ["succeeded", "queued"]}, [queued, done]),
        ({"state": "succeeded,queued"}, [queued, done]),
        ({"state": ["succeeded,queued", "cancelled"]}, [cancelled, queued, done]),
        ({"model": "resnet18"}, [cancelled, queued]),
        ({"model": "resnet18", "state": "queued"}, [queued]),
        ({"dataset": "digits"}, [cancelled, queued, done]),
        ({"dataset": "mnist"}, []),
        ({"name": "queued, really"}, [queued]),
        ({"name": "queued"}, []),
        ({"experiment": "a study"}, [queued]),
        ({"experiment": "a study", "state": "cancelled"}, []),
        ({"experiment": "a"}, []),
    ]
    for params, found in expected:
        assert ids(client.get("/v1/jobs", params=params)) == found, params


@pytest.mark.parametrize("limit", [1, 2, 6, 7, 8, 200])
def test_pages_together_are_the_list(client: httpx.Client, limit: int) -> None:
    submitted = [submit(client, name=str(number)) for number in range(7)]
    seen, cursor = [], None
    while True:
        params = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        response = client.get("/v1/jobs", params=params)
        page, cursor = ids(response), response.json()["next_cursor"]
        seen += page
        if cursor is None:
            break
        assert len(page) == limit
        submit(client, name="newer")  # must not move what is still to come
    assert seen == submitted[::-1]


def test_fifty_unless_told(client: httpx.Client) -> None:
    for _ in range(51):
        submit(client)
    response = client.get("/v1/jobs")
    assert len(ids(response)) == 50
    assert len(ids(client.get("/v1/jobs", params={"cursor": response.json()["next_cursor"]}))) == 1


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    statements: list[str] = []

    def count(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def test_list_takes_as_many_queries_for_one_job_as_for_many(client: httpx.Client, sqlite_store: Store) -> None:
    run_to_success(client, sqlite_store)
    with counted_statements() as one:
        client.get("/v1/jobs").raise_for_status()
    for _ in range(5):
        run_to_success(client, sqlite_store)
    with counted_statements() as many:
        assert len(ids(client.get("/v1/jobs"))) == 6
    assert queries_of_jobs(many) == queries_of_jobs(one)


def queries_of_jobs(statements: list[str]) -> int:
    """How many there are; whether there are API keys is asked besides, once a second."""
    return len([text for text in statements if text.startswith("SELECT") and "FROM api_keys" not in text])


# --- logs ------------------------------------------------------------------------------------------


def test_logs_of_the_attempts_of_a_job(client: httpx.Client, sqlite_store: Store, fleet: FakeFleet) -> None:
    job_id = submit(client)
    response = client.get(f"/v1/jobs/{job_id}/logs")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert "has no attempt 0" in response.json()["detail"]

    claim(sqlite_store)
    fleet.driver_logs = {f"{job_id}-a1": "one\n" + "x" * 65_536, f"{job_id}-a2": "two\n"}
    response = client.get(f"/v1/jobs/{job_id}/logs")  # while it runs: from Ray
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.text == "x" * 65_536
    jobs.attempt_lost(sqlite_store, job_id, 1, "node died", max_attempts=3)
    jobs.keep_log(sqlite_store, f"{job_id}-a1", "one ends\n")
    fleet.driver_logs.pop(f"{job_id}-a1")
    claim(sqlite_store)
    assert client.get(f"/v1/jobs/{job_id}/logs").text == "two\n"
    assert client.get(f"/v1/jobs/{job_id}/logs?attempt=1").text == "one ends\n"
    assert client.get(f"/v1/jobs/{job_id}/logs?attempt=3").status_code == 404
    assert client.get(f"/v1/jobs/{job_id}/logs?attempt=0").status_code == 422

    fleet.trouble = "No answer from Ray."
    assert client.get(f"/v1/jobs/{job_id}/logs?attempt=1").text == "one ends\n"
    response = client.get(f"/v1/jobs/{job_id}/logs")
    assert (response.status_code, response.json()["code"]) == (503, "cluster_unreachable")


# a query, the field that is named
WRONG_QUERIES = {
    "?limit=0": "limit",
    "?limit=201": "limit",
    "?limit=x": "limit",
    "?state=done": "state.0",
    "?state=": "state.0",
    "?state=queued,done": "state.1",
    "?stat=queued": "stat",
    "?State=queued": "State",
    "?cursor=nonsense": "cursor",
    "?cursor=": "cursor",
    "?cursor=%C3%A9": "cursor",
    "?cursor=LTE": "cursor",  # -1
    f"?cursor={'9' * 201}": "cursor",
    "?name=%00": "name",
    "?model=a%00": "model",
    "?dataset=%00": "dataset",
    f"?name={'x' * 201}": "name",
}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "/v1/jobs?limt=3",
            "unknown parameter; did you mean limit? known: state, model, dataset, name, experiment, limit, cursor",
        ),
        ("/v1/jobs/job-1?limt=3", "unknown parameter; known: none"),
        ("/v1/jobs/job-1/epochs?limt=3", "unknown parameter; known: none"),
        ("/v1/jobs/job-1/branches?limt=3", "unknown parameter; known: epoch"),
        ("/v1/jobs/job-1/events?limt=3", "unknown parameter; known: after"),
        ("/v1/catalog?limt=3", "unknown parameter; known: none"),
        ("/healthz?limt=3", "unknown parameter; known: none"),
    ],
)
def test_unknown_parameters_are_refused_everywhere(client: httpx.Client, path: str, message: str) -> None:
    response = client.get(path)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": "limt", "value": "3", "message": message}]


@pytest.mark.parametrize(("query", "field"), WRONG_QUERIES.items())
def test_wrong_queries(client: httpx.Client, query: str, field: str) -> None:
    response = client.get(f"/v1/jobs{query}")
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]
