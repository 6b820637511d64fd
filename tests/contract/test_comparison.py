"""Trials and comparison of a job, the history of all jobs, recommendations, and jobs that begin with one."""

import csv
import io
from typing import Any

import httpx
import pytest

from service.jobs import reports
from service.results import past_jobs
from service.store.engine import Store
from service.wire.worker import TrialRecord
from tests.builders import JSON, Worker, claim, epoch_record, run_to_success, spec_document, submit

pytest_plugins = ["tests.databases"]

SCHEDULED = {"phase": "scheduled", "branches": []}


def begin_trial(store: Store, worker: Worker, job_id: str, trial: int, **changes: Any) -> None:
    values = {"label": "tpe", "trial": trial, "seed": 0, "epochs": 3, "state": "running"} | changes
    reports.record_trial(store, job_id, worker.token, TrialRecord.model_validate(values))


@pytest.fixture
def job_id(client: httpx.Client, sqlite_store: Store) -> str:
    """stpt with two epochs beside tpe with two trials, of which one was stopped, and cosine, which has not begun."""
    job_id = submit(client, methods=["stpt", "cosine", {"name": "tpe", "max_trials": 2}])
    worker = Worker.started(client, claim(sqlite_store))
    records = [
        epoch_record(1, samples=2000, val_accuracy=0.5, test_accuracy=0.4),
        epoch_record(2, samples=1000, val_accuracy=0.8, test_accuracy=0.7, learning_rate=0.2),
    ]
    records[1]["branches"][0] |= {"learning_rate": 0.2}
    begin_trial(sqlite_store, worker, job_id, 1, config={"learning_rate": 0.3})
    begin_trial(sqlite_store, worker, job_id, 2, config={"learning_rate": 0.02})
    for trial, accuracy in ((1, 0.6), (2, 0.3)):
        more = {"label": "tpe", "trial": trial, "samples": 1000, "val_accuracy": accuracy, "test_accuracy": 0.5}
        records.append(epoch_record(1, **SCHEDULED, **more))
    records.append(
        epoch_record(2, **SCHEDULED, label="tpe", samples=1000, val_accuracy=0.9, test_accuracy=0.85, trial=1)
    )
    for record in records:
        worker.report(record).raise_for_status()
    begin_trial(
        sqlite_store,
        worker,
        job_id,
        2,
        config={"learning_rate": 0.02},
        state="stopped",
        message="worse than the median",
    )
    return job_id


# --- trials ----------------------------------------------------------------------------------------


def test_trials(client: httpx.Client, job_id: str) -> None:
    answer = client.get(f"/v1/jobs/{job_id}/trials").raise_for_status().json()
    assert answer["job_id"] == job_id
    stpt, cosine, first, second = answer["items"]
    assert stpt == {
        "label": "stpt",
        "method": "stpt",
        "trial": 1,
        "seed": 0,
        "config": {},
        "state": "running",
        "message": None,
        "epochs": 2,
        "length": 3,
        "samples": 3000,
        "lost_samples": 0,
        "val_accuracy": 0.8,
        "test_accuracy": 0.7,
        "best_epoch": 2,
        "learning_rate": 0.2,
        "last_learning_rate": 0.09,
    }
    assert (cosine["method"], cosine["state"], cosine["epochs"], cosine["samples"]) == ("cosine", "pending", 0, 0)
    nothing = ("val_accuracy", "test_accuracy", "best_epoch", "learning_rate", "last_learning_rate")
    assert [cosine[key] for key in nothing] == [None] * 5
    assert (first["method"], first["trial"], first["config"], first["epochs"]) == ("tpe", 1, {"learning_rate": 0.3}, 2)
    assert (second["trial"], second["state"], second["message"]) == (2, "stopped", "worse than the median")
    assert (second["val_accuracy"], second["test_accuracy"]) == (0.3, 0.5)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("label=tpe", [("tpe", 1), ("tpe", 2)]),
        ("state=stopped", [("tpe", 2)]),
        ("state=stopped,pending", [("cosine", 1), ("tpe", 2)]),
        ("state=stopped&state=pending&label=cosine", [("cosine", 1)]),
    ],
)
def test_filters_of_trials(client: httpx.Client, job_id: str, query: str, found: list[tuple[str, int]]) -> None:
    items = client.get(f"/v1/jobs/{job_id}/trials?{query}").raise_for_status().json()["items"]
    assert [(item["method"], item["trial"]) for item in items] == found


# --- comparison ------------------------------------------------------------------------------------


def test_comparison_as_json(client: httpx.Client, job_id: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/comparison")
    assert (response.headers["Content-Type"], response.headers["Vary"]) == ("application/json", "Accept")
    answer = response.json()
    assert answer["job_id"] == job_id
    stpt, cosine, tpe = answer["items"]
    assert (stpt["method"], stpt["trials"], stpt["seeds"]) == ("stpt", 1, 1)
    assert stpt["samples_to_stpt"] == {"mean": 3000, "spread": None}
    assert (cosine["trials"], cosine["seeds"], cosine["val_accuracy"]) == (1, 0, {"mean": None, "spread": None})
    [seed] = tpe["by_seed"]
    assert seed["curve"] == [
        {"samples": 1000, "val_accuracy": 0.6, "test_accuracy": 0.5},
        {"samples": 2000, "val_accuracy": 0.6, "test_accuracy": 0.5},
        {"samples": 3000, "val_accuracy": 0.9, "test_accuracy": 0.85},
    ]
    assert seed.pop("span_seconds") >= 0
    del seed["curve"]
    assert seed == {
        "seed": 0,
        "trials": 2,
        "val_accuracy": 0.9,
        "test_accuracy": 0.85,
        "samples": 3000,
        "lost_samples": 0,
        "evaluation_samples": 1512,
        "seconds": 7.5,
        "samples_to_stpt": 3000,
        "relative_to_stpt": 1.0,
    }


def test_two_settings_of_one_method_side_by_side(client: httpx.Client, sqlite_store: Store) -> None:
    """By their labels: in the comparison, its figure and CSV, and in every result of the job."""
    job_id = submit(client, methods=["stpt", {"name": "stpt", "label": "short", "lr_set": "narrow"}])
    worker = Worker.started(client, claim(sqlite_store))
    for label, accuracies in (("stpt", (0.5, 0.8)), ("short", (0.6, 0.7))):
        for epoch, accuracy in enumerate(accuracies, start=1):
            worker.report(epoch_record(epoch, label=label, val_accuracy=accuracy)).raise_for_status()
    path = f"/v1/jobs/{job_id}"
    stpt, short = client.get(f"{path}/comparison").json()["items"]
    assert [(run["label"], run["method"]) for run in (stpt, short)] == [("stpt", "stpt"), ("short", "stpt")]
    assert [run["val_accuracy"]["mean"] for run in (stpt, short)] == [0.8, 0.7]
    assert short["samples_to_stpt"]["mean"] is None  # of several runs of stpt the first is the measure
    assert "short" in client.get(f"{path}/comparison?format=svg").text
    assert client.get(f"{path}/comparison?format=csv").text.splitlines()[2].startswith("short,stpt,1,1,0.7,")
    [trial] = client.get(f"{path}/trials?label=short").json()["items"]
    assert (trial["label"], trial["method"], trial["val_accuracy"]) == ("short", "stpt", 0.7)
    assert {epoch["label"] for epoch in client.get(f"{path}/epochs").json()["items"]} == {"stpt", "short"}
    steps = client.get("/v1/lr-history?label=short").json()["items"]
    assert [(step["label"], step["method"], step["epoch"]) for step in steps] == [
        ("short", "stpt", 1),
        ("short", "stpt", 2),
    ]
    for label in ("short", "stpt"):
        replayed = client.get(f"{path}/selector-replay?selector=greedy&label={label}").json()
        assert [epoch["epoch"] for epoch in replayed["items"]] == [1, 2]
    response = client.get(f"{path}/trials?method=stpt")
    [error] = response.json()["errors"]
    assert (response.status_code, error["field"]) == (422, "method")
    assert error["message"].endswith("use label")


@pytest.mark.parametrize(("query", "accept"), [("", "text/csv"), ("?format=csv", "image/png")])
def test_comparison_as_csv(client: httpx.Client, job_id: str, query: str, accept: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/comparison{query}", headers={"Accept": accept})
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{job_id}-comparison.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["method"] for row in rows] == ["stpt", "cosine", "tpe"]
    assert (rows[2]["trials"], rows[2]["val_accuracy"], rows[2]["val_accuracy_spread"]) == ("2", "0.9", "")
    assert (rows[1]["seeds"], rows[1]["samples"]) == ("0", "")
    assert list(rows[0])[:6] == ["label", "method", "trials", "seeds", "val_accuracy", "val_accuracy_spread"]


@pytest.mark.parametrize(
    ("query", "accept", "kind", "beginning"),
    [
        ("?format=png", "*/*", "image/png", b"\x89PNG\r\n\x1a\n"),
        ("", "image/png, */*;q=0.1", "image/png", b"\x89PNG\r\n\x1a\n"),
        ("?format=svg", "application/json", "image/svg+xml", b"<?xml"),
        ("", "image/svg+xml", "image/svg+xml", b"<?xml"),
    ],
)
def test_comparison_as_a_figure(
    client: httpx.Client, job_id: str, query: str, accept: str, kind: str, beginning: bytes
) -> None:
    response = client.get(f"/v1/jobs/{job_id}/comparison{query}", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Content-Type"].partition(";")[0] == kind
    assert response.content.startswith(beginning)
    assert response.headers["Content-Disposition"].startswith("inline; ")


def test_comparison_of_a_job_that_has_not_begun(client: httpx.Client) -> None:
    job_id = submit(client)
    [run] = client.get(f"/v1/jobs/{job_id}/comparison").json()["items"]
    assert (run["method"], run["trials"], run["seeds"], run["by_seed"]) == ("stpt", 1, 0, [])
    assert client.get(f"/v1/jobs/{job_id}/comparison?format=svg").content.startswith(b"<?xml")


def test_a_browser_gets_json(client: httpx.Client, job_id: str) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
    response = client.get(f"/v1/jobs/{job_id}/comparison", headers={"Accept": accept})
    assert response.headers["Content-Type"] == "application/json"


# --- the history of all jobs -----------------------------------------------------------------------


def rows_of(client: httpx.Client, **params: Any) -> list[tuple[str, str, int, int]]:
    """(job, method, trial, epoch) of every page."""
    rows, cursor = [], None
    while True:
        response = client.get("/v1/lr-history", params=params | ({"cursor": cursor} if cursor else {}))
        page = response.raise_for_status().json()
        rows += [(item["job_id"], item["method"], item["trial"], item["epoch"]) for item in page["items"]]
        cursor = page["next_cursor"]
        assert ("Link" in response.headers) == (cursor is not None)
        if cursor is None:
            return rows


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_history_of_all_jobs_in_pages(client: httpx.Client, sqlite_store: Store, limit: int) -> None:
    old = run_to_success(client, sqlite_store)
    new = run_to_success(client, sqlite_store, optimizer="adam", global_batch_size=32)
    expected = [(job, "stpt", 1, epoch) for job in (new, old) for epoch in (1, 2, 3)]
    assert rows_of(client, limit=limit) == expected
    first = client.get("/v1/lr-history", params={"limit": 2}).json()
    newest = run_to_success(client, sqlite_store)  # must not move what is still to come
    rest = rows_of(client, limit=limit, cursor=first["next_cursor"]) if limit == 100 else None
    assert rest in (None, expected[2:])
    assert rows_of(client, limit=limit)[:3] == [(newest, "stpt", 1, epoch) for epoch in (1, 2, 3)]


def test_filters_and_columns_of_the_history(client: httpx.Client, sqlite_store: Store) -> None:
    plain = run_to_success(client, sqlite_store)
    other = run_to_success(client, sqlite_store, optimizer="adam", global_batch_size=32, model="resnet18")
    submit(client)
    both = [other] * 3 + [plain] * 3
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({}, both),
        ({"model": "resnet18"}, [other] * 3),
        ({"dataset": "digits", "state": "succeeded,failed"}, both),
        ({"dataset": "mnist"}, []),
        ({"optimizer": "sgd"}, [plain] * 3),
        ({"batch": 32}, [other] * 3),
        ({"batch": 33}, []),
        ({"method": "stpt"}, both),
        ({"method": "tpe"}, []),
        ({"label": "stpt"}, both),
        ({"label": "short"}, []),
        ({"state": "running"}, []),
    ]
    for params, jobs in expected:
        assert [row[0] for row in rows_of(client, **params)] == jobs, params
    assert client.get("/v1/lr-history?batch=32&limit=1").json()["items"] == [
        {
            "job_id": other,
            "model": "resnet18",
            "dataset": "digits",
            "optimizer": "adam",
            "global_batch_size": 32,
            "label": "stpt",
            "method": "stpt",
            "trial": 1,
            "seed": 0,
            "epoch": 1,
            "phase": "stpt",
            "learning_rate": 0.1,
            "first_learning_rate": 0.1,
            "last_learning_rate": 0.09,
            "val_accuracy": 0.5,
            "test_accuracy": 0.4,
            "samples": 1536,
        }
    ]


@pytest.mark.parametrize(("query", "accept"), [("", "text/csv"), ("&format=csv", "*/*")])
def test_history_as_csv(client: httpx.Client, sqlite_store: Store, query: str, accept: str) -> None:
    run_to_success(client, sqlite_store)
    response = client.get(f"/v1/lr-history?limit=2{query}", headers={"Accept": accept})
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert [row["epoch"] for row in csv.DictReader(io.StringIO(response.text))] == ["1", "2"]
    link = response.headers["Link"]
    assert link.startswith("</v1/lr-history?limit=2&")
    assert link.endswith('>; rel="next"')
    following = client.get(link[1 : link.index(">")], headers={"Accept": accept})
    assert [row["epoch"] for row in csv.DictReader(io.StringIO(following.text))] == ["3"]
    assert "Link" not in following.headers


# --- recommendation --------------------------------------------------------------------------------


def test_recommendation(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = run_to_success(client, sqlite_store)
    answer = client.get("/v1/recommendation?model=lenet5&dataset=digits&batch=256").raise_for_status().json()
    assert answer == {
        "model": "lenet5",
        "dataset": "digits",
        "optimizer": "sgd",
        "global_batch_size": 256,
        "learning_rate": 0.4,
        "low": 0.4,
        "high": 0.4,
        "schedule": {
            "learning_rates": [0.4, 0.4, 0.4],
            "lr_schedule": "constant",
            "warmup_epochs": 0,
            "warmup_share": 0.0,
            "rescale_momentum": False,
        },
        "rule": "linear",
        "note": "The evidence has batch 64; for batch 256 its learning rates of sgd were scaled in proportion to the "
        "batch (Goyal et al. 2017, arXiv 1706.02677).",
        "evidence": [
            {
                "job_id": job_id,
                "seed": 0,
                "optimizer": "sgd",
                "global_batch_size": 64,
                "lr_schedule": "constant",
                "learning_rate": 0.1,
                "scaled_learning_rate": 0.4,
                "val_accuracy": 1 - 0.5 / 3,
                "test_accuracy": 0.8,
            }
        ],
    }


def test_the_schedule_of_a_recommendation_has_the_warm_up_of_its_training(
    client: httpx.Client, sqlite_store: Store
) -> None:
    """A warm-up of a tenth is none of the three epochs of the spec, and one of the six within the budget."""
    submit(client, lr_set={"kind": "race"}, warmup={"epochs": None}, budget={"epochs": 7})
    worker = Worker.started(client, claim(sqlite_store))
    worker.report_trial({"label": "stpt", "trial": 1, "seed": 0, "epochs": 6, "state": "running"}).raise_for_status()
    worker.report(epoch_record(1, phase="warmup", learning_rate=0.005, branches=[])).raise_for_status()
    for number in range(2, 7):
        worker.report(epoch_record(number)).raise_for_status()
    worker.finish().raise_for_status()
    answer = client.get("/v1/recommendation?model=lenet5&dataset=digits").raise_for_status().json()
    assert answer["schedule"]["learning_rates"] == [0.005, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert (answer["schedule"]["warmup_epochs"], answer["learning_rate"]) == (1, 0.1)


def test_without_evidence_there_is_no_recommendation(client: httpx.Client, job_id: str) -> None:
    for query in ("model=lenet5&dataset=digits", "model=none&dataset=digits", "model=lenet5&dataset=mnist&batch=64"):
        response = client.get(f"/v1/recommendation?{query}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert "submit one with lr_set left out" in response.json()["detail"]


def test_a_job_that_begins_with_a_recommendation(client: httpx.Client, sqlite_store: Store) -> None:
    document = spec_document(lr_set={"from_history": True})
    response = client.post("/v1/jobs", json=document)
    [error] = response.json()["errors"]
    assert (response.status_code, error["field"], error["value"]) == (422, "lr_set.from_history", True)
    assert client.post("/v1/plan", json=document).status_code == 422
    run_to_success(client, sqlite_store)
    assert client.post("/v1/plan", json=document).json()["runs"][0]["search_area"][0] == {
        "epoch": 1,
        "low": 0.05,
        "high": 0.2,
    }
    headers = {"Idempotency-Key": "once"}
    job = client.post("/v1/jobs", json=document, headers=headers).raise_for_status().json()
    assert (job["spec"]["lr_set"]["kind"], job["spec"]["initial_learning_rate"]) == ("stages", 0.1)
    assert job["spec"]["lr_set"]["stages"] == [{"factors": [2.0, 1.0, 0.5], "pretrain_share": 1.0}]
    client.post(f"/v1/jobs/{job['id']}/cancel", headers=JSON).raise_for_status()
    # more is known by now; the same request is the same job all the same
    other = submit(client)
    worker = Worker.started(client, claim(sqlite_store))
    for number in (1, 2, 3):
        record = epoch_record(number, learning_rate=0.3)
        record["branches"][0] |= {"learning_rate": 0.3}
        worker.report(record).raise_for_status()
    worker.finish().raise_for_status()
    assert other != job["id"]
    assert client.post("/v1/jobs", json=document, headers=headers).raise_for_status().json()["id"] == job["id"]
    assert client.post("/v1/jobs", json=document).json()["spec"]["initial_learning_rate"] == pytest.approx(0.03**0.5)


def test_a_task_is_evidence_for_itself_alone(client: httpx.Client, sqlite_store: Store) -> None:
    documents = {
        task: spec_document(lr_set={"from_history": True}, task=task) for task in ("classification", "barlow-twins")
    }
    [error] = client.post("/v1/jobs", json=documents["barlow-twins"]).json()["errors"]
    assert error["message"].startswith("no succeeded barlow-twins job has trained lenet5 on digits with sgd by stpt")
    run_to_success(client, sqlite_store, task="barlow-twins")
    assert client.get("/v1/recommendation?model=lenet5&dataset=digits").status_code == 404
    statuses = {task: client.post("/v1/jobs", json=document).status_code for task, document in documents.items()}
    assert statuses == {"classification": 422, "barlow-twins": 202}


def test_jobs_of_other_tasks_do_not_hide_the_evidence(
    client: httpx.Client, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_jobs, "EVIDENCE_JOBS", 1)
    job_id = run_to_success(client, sqlite_store)
    run_to_success(client, sqlite_store, task="barlow-twins")
    answer = client.get("/v1/recommendation?model=lenet5&dataset=digits").raise_for_status().json()
    assert [one["job_id"] for one in answer["evidence"]] == [job_id]


def test_from_history_is_true_or_left_out(client: httpx.Client) -> None:
    response = client.post("/v1/jobs", json=spec_document(lr_set={"from_history": False}))
    [error] = response.json()["errors"]
    assert (response.status_code, error["field"], error["value"]) == (422, "lr_set.from_history", False)


# --- wrong requests --------------------------------------------------------------------------------

WRONG = {
    "jobs/JOB/trials?label=replay": "label",
    "jobs/JOB/trials?method=stpt": "method",
    "jobs/JOB/trials?state=done": "state.0",
    "jobs/JOB/trials?seed=1": "seed",
    "jobs/JOB/comparison?format=pdf": "format",
    "jobs/JOB/comparison?method=stpt": "method",
    "lr-history?method=best": "method",
    "lr-history?limit=0": "limit",
    "lr-history?limit=5001": "limit",
    "lr-history?cursor=x": "cursor",
    "lr-history?cursor=MQ": "cursor",  # of the list of jobs
    "lr-history?batch=0": "batch",
    "lr-history?optimizer=best": "optimizer",
    "lr-history?state=done": "state.0",
    "lr-history?format=png": "format",
    "lr-history?epoch=1": "epoch",
    "recommendation?dataset=digits": "model",
    "recommendation?model=lenet5": "dataset",
    "recommendation?model=lenet5&dataset=digits&batch=x": "batch",
    "recommendation?model=lenet5&dataset=digits&optimizer=best": "optimizer",
    "recommendation?model=resnet50&dataset=image-folder": "path",
    "recommendation?model=lenet5&dataset=digits&path=birds": "path",
}


@pytest.mark.parametrize(("path", "field"), WRONG.items())
def test_wrong_requests(client: httpx.Client, job_id: str, path: str, field: str) -> None:
    response = client.get(f"/v1/{path.replace('JOB', job_id)}")
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("path", ["trials", "comparison", "comparison?format=csv", "comparison?format=png"])
def test_unknown_job(client: httpx.Client, path: str) -> None:
    response = client.get(f"/v1/jobs/job-0000000000000000/{path}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert client.get(f"/v1/jobs/%00/{path}").status_code == 422
