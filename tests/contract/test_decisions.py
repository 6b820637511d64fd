"""Why the learning rates are what they are: choices, warnings, and the figure."""

from typing import Any

import httpx
import pytest

from service.store.engine import Store
from tests.builders import Worker, branch_records, claim, epoch_record, submit

pytest_plugins = ["tests.databases"]


def settled(learning_rate: float) -> list[dict[str, Any]]:
    return branch_records(learning_rate)


@pytest.fixture
def job_id(client: httpx.Client, sqlite_store: Store) -> str:
    """stpt by val_accuracy: a warm-up, a choice of three at the upper end, two epochs in which it stands; and a sweep
    beside it."""
    stages = {"stages": [{"factors": [1.0, 2.0, 0.5]}]}
    methods = ["stpt", {"name": "sweep", "learning_rates": [0.1]}]
    job_id = submit(client, epochs=4, lr_set=stages, methods=methods, warmup={"epochs": 1})
    worker = Worker.started(client, claim(sqlite_store))
    for record in (
        epoch_record(1, phase="warmup", learning_rate=0.005, branches=[]),
        epoch_record(2, learning_rate=0.2, branches=branch_records(0.1, 0.2, 0.05, chosen=2)),
        epoch_record(3, learning_rate=0.2, branches=settled(0.2)),
        epoch_record(4, learning_rate=0.2, branches=settled(0.2)),
    ):
        worker.report(record).raise_for_status()
    return job_id


def test_decisions(client: httpx.Client, job_id: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/decisions")
    assert (response.headers["Content-Type"], response.headers["Vary"]) == ("application/json", "Accept")
    answer = response.json()
    items = answer.pop("items")
    assert answer == {
        "job_id": job_id,
        "label": "stpt",
        "trial": 1,
        "metric": "val_accuracy",
        "selector": {"name": "greedy"},
    }
    assert [(item["epoch"], item["is_choice"], item["chosen_at"], len(item["candidates"])) for item in items] == [
        (1, False, None, 0),
        (2, True, 2, 3),
        (3, False, 2, 1),
        (4, False, 2, 1),
    ]
    assert items[0]["why"] == "warm-up: the learning rate is set until epoch 1, nothing is tried"
    assert items[3]["why"] == "the search ended after epoch 2; the learning rate stays as it is"
    assert client.get(f"/v1/jobs/{job_id}/decisions?label=stpt&trial=1&format=json").json()["items"] == items


def test_within_a_budget_it_is_the_training_that_counts(client: httpx.Client, sqlite_store: Store) -> None:
    """A warm-up of a tenth is none of three epochs and one of six."""
    race = {"kind": "race"}
    job_id = submit(client, lr_set=race, warmup={"epochs": None}, budget={"epochs": 7})
    worker = Worker.started(client, claim(sqlite_store))
    worker.report_trial({"label": "stpt", "trial": 1, "seed": 0, "epochs": 6, "state": "running"}).raise_for_status()
    for record in (
        epoch_record(1, phase="warmup", learning_rate=0.005, branches=[]),
        epoch_record(2, learning_rate=0.2, branches=branch_records(0.1, 0.2, 0.05, chosen=2)),
        epoch_record(3, learning_rate=0.2, branches=settled(0.2)),
    ):
        worker.report(record).raise_for_status()
    items = client.get(f"/v1/jobs/{job_id}/decisions").json()["items"]
    assert [item["why"] for item in items] == [
        "warm-up: the learning rate is set until epoch 1, nothing is tried",
        "selector greedy by val_accuracy: The best metric wins.",
        "the search ended after epoch 2; the learning rate stays as it is",
    ]


def test_a_choice(client: httpx.Client, job_id: str) -> None:
    choice = client.get(f"/v1/jobs/{job_id}/decisions").json()["items"][1]
    candidates = choice.pop("candidates")
    assert choice == {
        "epoch": 2,
        "phase": "stpt",
        "is_choice": True,
        "chosen_at": 2,
        "why": "selector greedy by val_accuracy: The best metric wins.",
        "current_learning_rate": 0.1,
        "learning_rate": 0.2,
        "first_learning_rate": 0.1,
        "last_learning_rate": 0.09,
        "val_loss": 0.75,
        "val_accuracy": 0.75,
        "retries": 0,
        "rollbacks": 0,
        "regret": None,
        "rule": {
            "best": {"learning_rate": 0.2, "metric": 0.5},
            "runner_up": {"learning_rate": 0.1, "metric": 0.4},
            "margin": pytest.approx(0.1),
            "threshold": None,
            "ties": [],
            "passed_over": [],
        },
        "alternatives": [{"selector": {"name": "tolerance", "tolerance": 0.03}, "learning_rate": 0.2, "regret": None}],
        "warnings": [
            {
                "code": "highest_tried",
                "message": "0.2 is the highest learning rate that was tried: a higher one may be better, widen lr_set",
            }
        ],
    }
    assert candidates[1] == {
        "number": 2,
        "retry": 0,
        "learning_rate": 0.2,
        "factor": 2.0,
        "metric": 0.5,
        "iterations": 2,
        "seconds": 0.25,
        "state": "chosen",
        "curve": [  # from the accuracy after the warm-up; 24 iterations of which three branches took two each
            {"iterations": 0, "metric": 0.5},
            {"iterations": 2, "metric": 0.5},
            {"iterations": 20, "metric": 0.75},
        ],
    }


@pytest.mark.parametrize(
    ("query", "accept", "kind", "shown"),
    [
        ("", "image/svg+xml", "image/svg+xml", ["epoch 2: 0.2", "highest tried", "chosen", "learning rate"]),
        ("?format=svg", "*/*", "image/svg+xml", ["stpt 1)"]),
        ("?format=png", "application/json", "image/png", []),
    ],
)
def test_the_figure(client: httpx.Client, job_id: str, query: str, accept: str, kind: str, shown: list[str]) -> None:
    response = client.get(f"/v1/jobs/{job_id}/decisions{query}", headers={"Accept": accept})
    assert response.headers["Content-Type"].partition(";")[0] == kind
    ending = kind.partition("/")[2].partition("+")[0]
    assert response.headers["Content-Disposition"] == f'inline; filename="{job_id}-decisions.{ending}"'
    assert response.content.startswith(b"<?xml" if ending == "svg" else b"\x89PNG\r\n\x1a\n")
    assert all(text in response.text for text in shown)


def race_records() -> list[dict[str, Any]]:
    """The looks of a race: wide ones of one iteration, two of three, and two finalists that go on for two."""
    looks = [branch | {"state": "eliminated", "iterations": 1} for branch in branch_records(1.0, 0.1, 0.01)]
    looks += [branch | {"state": "eliminated", "iterations": 3} for branch in branch_records(0.1, 0.03)]
    looks += branch_records(0.1, 0.03)
    return [look | {"number": number} for number, look in enumerate(looks, start=1)]


def test_a_race(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client, epochs=2, lr_set={"kind": "race"}, lr_schedule="linear")
    worker = Worker.started(client, claim(sqlite_store))
    worker.report(epoch_record(1, branches=race_records(), iterations=13 + 20)).raise_for_status()
    worker.report(epoch_record(2, branches=settled(0.1))).raise_for_status()
    first, second = client.get(f"/v1/jobs/{job_id}/decisions").json()["items"]
    assert [candidate["state"] for candidate in first["candidates"]] == [*["eliminated"] * 5, "chosen", "lost"]
    assert [candidate["iterations"] for candidate in first["candidates"]] == [1, 1, 1, 3, 3, 5, 5]
    assert first["candidates"][5]["curve"] == [{"iterations": 3, "metric": 0.5}, {"iterations": 5, "metric": 0.5}]
    assert first["rule"] == {
        "best": {"learning_rate": 0.1, "metric": 0.5},
        "runner_up": {"learning_rate": 0.03, "metric": 0.4},
        "margin": pytest.approx(0.1),
        "threshold": None,
        "ties": [],
        "passed_over": [],
    }
    assert first["warnings"] == []
    assert second["why"] == "the search ended after epoch 1; the learning rate follows its schedule (linear)"
    figure = client.get(f"/v1/jobs/{job_id}/decisions?format=svg").text
    assert "no finalist" in figure
    assert "epoch 1: 0.1" in figure
    assert "end of the epoch" not in figure  # which no look has seen
    states = [branch["state"] for branch in client.get(f"/v1/jobs/{job_id}/branches?epoch=1").json()["items"]]
    assert states == [candidate["state"] for candidate in first["candidates"]]
    [replayed, _] = client.get(f"/v1/jobs/{job_id}/selector-replay?selector=tolerance&tolerance=0.2").json()["items"]
    assert (replayed["recorded_learning_rate"], replayed["learning_rate"]) == (0.1, 0.1)  # errors of 0.5 and 0.6


def test_each_seed_is_a_trial_of_its_own(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client, epochs=1, seeds=2)
    worker = Worker.started(client, claim(sqlite_store))
    for trial, chosen in ((1, 1), (2, 2)):
        branches = branch_records(0.1, 0.2, 0.05, chosen=chosen)
        worker.report(epoch_record(1, trial=trial, learning_rate=0.1 * chosen, branches=branches)).raise_for_status()
    found = [client.get(f"/v1/jobs/{job_id}/decisions?trial={trial}").json()["items"] for trial in (1, 2)]
    assert [[item["learning_rate"] for item in items] for items in found] == [[0.1], [0.2]]


def test_a_job_that_has_not_begun(client: httpx.Client) -> None:
    job_id = submit(client)
    assert client.get(f"/v1/jobs/{job_id}/decisions").json()["items"] == []
    assert "no epoch is recorded yet" in client.get(f"/v1/jobs/{job_id}/decisions?format=svg").text


def test_the_stages_of_autolrs(client: httpx.Client, sqlite_store: Store) -> None:
    """Stages of one and of two epochs, each of 20 iterations: three trials of two iterations each begin a stage."""
    stages = {"trials": 3, "stage_iterations": 20, "max_stage_iterations": 40}
    job_id = submit(client, methods=["reference", {"name": "autolrs", **stages}])
    worker = Worker.started(client, claim(sqlite_store))
    whole = {"label": "autolrs", "iterations": 26}
    worker.report(epoch_record(1, **whole, branches=branch_records(0.1, 0.2, 0.05))).raise_for_status()
    worker.report(epoch_record(2, **whole, branches=branch_records(0.1, 0.2, 0.05))).raise_for_status()
    within = {"label": "autolrs", "phase": "scheduled", "iterations": 20, "branches": []}
    worker.report(epoch_record(3, **within)).raise_for_status()
    answer = client.get(f"/v1/jobs/{job_id}/decisions").json()
    assert (answer["label"], answer["metric"]) == ("autolrs", "forecast_loss")
    assert answer["selector"] == {
        "name": "autolrs",
        "search_interval": None,
        **stages,
        "trial_iterations": None,
        "kappa": 1e6,
    }
    assert [(item["is_choice"], item["chosen_at"], len(item["candidates"])) for item in answer["items"]] == [
        (True, 1, 3),
        (True, 2, 3),
        (False, 2, 0),
    ]
    figure = client.get(f"/v1/jobs/{job_id}/decisions?label=autolrs&format=svg").text
    assert "epoch 2: 0.1" in figure
    assert "forecast_loss" in figure


def test_a_job_without_a_run_of_stpt(client: httpx.Client) -> None:
    job_id = submit(client, methods=["reference"])
    response = client.get(f"/v1/jobs/{job_id}/decisions")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.json()["detail"] == f"job {job_id} has no stpt or autolrs; its runs are reference"


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("label=sweep", 404, "has no stpt or autolrs with the label sweep; its runs are stpt, sweep"),
        ("trial=2", 404, "has no trial 2 of stpt; its last one is 1"),
        ("trial=0", 422, "trial"),
        ("trial=2147483648", 422, "trial"),
        ("label=%00", 422, "label"),
        ("format=csv", 422, "format"),
        ("epoch=2", 422, "epoch"),
    ],
)
def test_wrong_queries(client: httpx.Client, job_id: str, query: str, status: int, told: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/decisions?{query}")
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert told in response.json()["detail"]
    if status == 422:
        assert [error["field"] for error in response.json()["errors"]] == [told]
