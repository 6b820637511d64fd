"""POST /v1/plan, and the studies of the paper as jobs."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.computing import Computing
from api.deps import Services
from service.cluster.base import Capacity
from service.store.engine import Store
from service.validation.door import MAX_SPEC_BYTES
from tests.builders import JSON, run_to_success, spec_document
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]

DIGITS = {"dataset": "digits", "epochs": 3}
STUDY = {"name": "lr-sets", "scale": "fashion-mnist", "spec": DIGITS}


def errors(response: httpx.Response) -> dict[str, tuple[Any, str]]:
    """field -> (value, message) of a refusal."""
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    assert response.headers["Content-Type"] == "application/problem+json"
    return {error["field"]: (error["value"], error["message"]) for error in response.json()["errors"]}


# --- plan --------------------------------------------------------------------------------------------


def test_a_plan_that_takes_too_long_or_comes_when_others_are_computed(services: Services, client: httpx.Client) -> None:
    computing = Computing(seconds=1e-6, processes=1, waiting=0)
    client.app.state.services = replace(services, computing=computing)  # type: ignore[attr-defined]
    expensive = client.post("/v1/plan", json=spec_document())
    assert (expensive.status_code, expensive.json()["code"]) == (422, "too_expensive")
    assert "FORERUN_COMPUTE_SECONDS" in expensive.json()["detail"]
    with computing.turn():
        busy = client.post("/v1/plan", json=spec_document())
    assert (busy.status_code, busy.json()["code"], busy.headers["Retry-After"]) == (503, "too_busy", "5")


def test_plan_of_a_range_test(client: httpx.Client) -> None:
    """100 iterations of 64 are five epochs; 3 epochs of 20 iterations, or of a budget of 9.5 four, follow."""
    document = spec_document(methods=["lr-range-test"])
    for budget, iterations in ((None, 100 + 3 * 20), ({"epochs": 9.5}, 100 + 4 * 20)):
        [run] = client.post("/v1/plan", json=document | {"budget": budget}).raise_for_status().json()["runs"]
        assert (run["label"], run["trainings"], run["search_area"]) == ("lr-range-test", 1, [])
        assert (run["samples"], run["iterations"]) == (iterations * 64, iterations)


def test_plan_of_a_race(client: httpx.Client) -> None:
    """15 % of 300 iterations are 7 looks of 1, 4 of 3 and two finalists' 13 more; then 13 epochs of 19."""
    document = {"model": "lenet5", "dataset": "digits", "epochs": 10}
    [run] = client.post("/v1/plan", json=document | {"budget": {"epochs": 15}}).raise_for_status().json()["runs"]
    assert (run["samples"], run["iterations"]) == ((45 + 13 * 19) * 64, 45 + 13 * 19)
    assert (run["pretrain_iterations"], run["main_train_iterations"]) == (2, 17)  # of the epochs behind the first
    assert [area["epoch"] for area in run["search_area"]] == list(range(1, 14))
    [run] = client.post("/v1/plan", json=document).raise_for_status().json()["runs"]
    assert (run["iterations"], run["relative_to_sweep"]) == (249, 0.249)
    assert (run["pretrain_iterations"], run["main_train_iterations"]) == (2, 18)
    refused = client.post("/v1/plan", json=document | {"budget": {"samples": 1279}})
    assert errors(refused) == {
        "budget.samples": (1279, "less than an epoch, which takes 1280 samples; give that at least")
    }


def test_plan_of_a_search_of_every_epoch_within_a_budget(client: httpx.Client) -> None:
    """With 8 candidates of 2 iterations an epoch of 19 takes 33 iterations; 373 have room for 11 of them."""
    document = {"model": "lenet5", "dataset": "digits", "epochs": 10, "lr_set": "middle"}
    within = document | {"budget": {"samples": 373 * 64}}
    [run] = client.post("/v1/plan", json=within).raise_for_status().json()["runs"]
    assert (run["samples"], run["iterations"]) == (11 * 33 * 64, 11 * 33)
    assert (run["pretrain_iterations"], run["main_train_iterations"]) == (2, 17)
    assert [area["epoch"] for area in run["search_area"]] == list(range(1, 12))
    for path in ("/v1/jobs", "/v1/plan"):
        refused = client.post(path, json=document | {"budget": {"epochs": 1}})
        why = "less than the search of stpt (896 samples) and an epoch (1280); give 2 at least, or let it search less"
        assert errors(refused) == {"budget.epochs": (1, why)}


def test_plan(client: httpx.Client, fleet: FakeFleet) -> None:
    document = spec_document(lr_set="narrow", global_batch_size=64, methods=["stpt", "sweep"])
    response = client.post("/v1/plan", json=document)
    assert response.status_code == 200
    plan = response.json()
    stpt, sweep = plan.pop("runs")
    assert plan == {"train_samples": 1293, "iterations_per_epoch": 20}
    assert [round(area[bound], 12) for area in stpt.pop("search_area") for bound in ("epoch", "low", "high")] == [
        *(1, 0.08, 0.125),
        *(2, 0.064, 0.15625),
        *(3, 0.0512, 0.1953125),
    ]
    # 3 epochs of 8 branches of 2 iterations, and of 18 more
    assert stpt == {
        "label": "stpt",
        "method": "stpt",
        "trainings": 1,
        "samples": 3 * (8 * 2 + 18) * 64,
        "iterations": 102.0,
        "relative_to_sweep": 0.2125,
        "pretrain_iterations": 2,
        "main_train_iterations": 18,
    }
    assert sweep == {
        "label": "sweep",
        "method": "sweep",
        "trainings": 8,
        "samples": 8 * 3 * 20 * 64,
        "iterations": 480.0,
        "relative_to_sweep": 1.0,
        "pretrain_iterations": None,
        "main_train_iterations": None,
        "search_area": [],
    }
    assert client.get("/v1/jobs").json()["items"] == []  # nothing has started
    assert fleet.wakes == 0


def test_a_plan_of_what_is_no_spec(client: httpx.Client) -> None:
    assert set(errors(client.post("/v1/plan", json=spec_document(epochs=0, methods=["spt"])))) == {
        "epochs",
        "methods[0]",
    }
    replay = [{"name": "replay", "job": "job-0"}]
    assert errors(client.post("/v1/plan", json=spec_document(methods=replay))) == {
        "methods[0].job": ("job-0", "there is no job job-0; GET /v1/jobs lists the jobs")
    }
    assert client.post("/v1/plan", content="{}").status_code == 415


def test_a_plan_of_data_that_only_the_workers_see(services: Services) -> None:
    folder = {"name": "image-folder", "path": "birds"}
    with TestClient(create_app(replace(services, data_is_local=False))) as client:
        assert client.post("/v1/plan", json=spec_document(dataset="mnist")).json()["train_samples"] == 54_000
        value, message = errors(client.post("/v1/plan", json=spec_document(dataset=folder)))["dataset"]
    assert value == "image-folder"
    assert "birds/train/CLASS/IMAGE" in message


# --- experiments -------------------------------------------------------------------------------------


def test_the_studies_there_are(client: httpx.Client) -> None:
    answer = client.get("/v1/experiments").json()
    assert answer["scales"] == ["paper", "fashion-mnist", "cifar10"]
    studies = {study["name"]: study for study in answer["items"]}
    assert list(studies) == [
        "alpha-sweep",
        "lr-sets",
        "mix",
        "reference",
        "conventional-sweep",
        "large-batches",
        "layer-wise-optimizers",
        "tvlars-lambda",
    ]
    assert studies["mix"] == {
        "name": "mix",
        "paper": "STPT",
        "figures": "10, 11",
        "description": "Narrow, middle, wide in turn, beside narrow and the reference.",
        "jobs": ["mix", "narrow", "reference"],
        "scales": ["paper", "fashion-mnist", "cifar10"],
    }
    assert studies["large-batches"]["scales"] == ["paper", "fashion-mnist"]


def test_a_study_becomes_jobs(client: httpx.Client, fleet: FakeFleet) -> None:
    response = client.post("/v1/experiments", json=STUDY | {"experiment": "my study"})
    answer = response.json()
    assert (response.status_code, answer["experiment"]) == (202, "my study")
    assert [(job["name"], job["state"], job["experiment"]) for job in answer["items"]] == [
        ("narrow", "queued", "my study"),
        ("middle", "queued", "my study"),
        ("wide", "queued", "my study"),
    ]
    for job in answer["items"]:
        assert (job["model"], job["dataset"], job["epochs"], job["trials"]) == ("lenet5", "digits", 3, 1)
        assert job["spec"]["lr_set"]["name"] == job["name"]
    assert fleet.wakes == 1
    listed = client.get("/v1/jobs", params={"experiment": "my study"}).json()["items"]
    assert listed == answer["items"][::-1]


def test_the_same_study_again_is_the_same_jobs(client: httpx.Client) -> None:
    first = client.post("/v1/experiments", json=STUDY | {"experiment": "e-1"}).json()
    assert client.post("/v1/experiments", json=STUDY | {"experiment": "e-1"}).json() == first
    others = [client.post("/v1/experiments", json=STUDY).json()["experiment"] for _ in range(2)]
    assert len(set(others)) == 2  # without a name each is new
    assert all(name.startswith("lr-sets-") for name in others)
    assert len(client.get("/v1/jobs").json()["items"]) == 9


def test_alphas_are_shares_of_the_epoch_at_hand(client: httpx.Client) -> None:
    study = {"name": "alpha-sweep", "spec": DIGITS | {"global_batch_size": 64}}
    jobs = client.post("/v1/experiments", json=study).json()["items"]
    alphas = [job["spec"]["methods"][0]["pretrain"]["iterations"] for job in jobs[:-1]]
    assert alphas == [1, 5, 10, 20]  # of 20 iterations; the reference has no Pre-train
    assert [method["name"] for method in jobs[-1]["spec"]["methods"]] == ["reference"]


def test_a_study_that_replays_a_job_gets_its_schedule(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = run_to_success(client, sqlite_store)
    replay = {"name": "replay", "job": job_id}
    study = {"name": "lr-sets", "spec": DIGITS | {"methods": [replay]}}
    for job in client.post("/v1/experiments", json=study).json()["items"]:
        assert job["spec"]["methods"][0]["schedule"]["learning_rates"] == [0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        (
            {"name": "figure-5"},
            "name",
            "choose one of alpha-sweep, lr-sets, mix, reference, conventional-sweep, large-batches, "
            "layer-wise-optimizers, tvlars-lambda",
        ),
        ({"name": None}, "name", "valid string"),
        (
            {"name": "large-batches", "scale": "cifar10"},
            "scale",
            "not a size of large-batches; choose one of paper, fashion-mnist",
        ),
        ({"scale": "imagenet"}, "scale", "'paper', 'fashion-mnist' or 'cifar10'"),
        ({"scale": "paper", "spec": {}}, "dataset", "required"),
        ({"experiment": ""}, "experiment", "at least 1 character"),
        ({"experiment": "a\0"}, "experiment", "match pattern"),
        ({"spec": []}, "spec", "should be an object"),
        ({"spec": DIGITS | {"epochs": 0}}, "epochs", "greater than or equal to 1"),
        (
            {"spec": DIGITS | {"methods": [{"name": "stpt", "pretrain": 3}]}},
            "methods[0].pretrain",
            "should be an object",
        ),
        ({"spec": DIGITS | {"preset": "mine"}}, "preset", "'stpt-paper'"),
        ({"spec": {"dataset": "mnist"}}, "dataset", "put its files there"),
        ({"specs": {}}, "specs", ""),
    ],
)
def test_a_study_that_is_refused(
    client: httpx.Client, fleet: FakeFleet, changes: dict[str, Any], field: str, message: str
) -> None:
    found = errors(client.post("/v1/experiments", json=STUDY | changes))
    assert message in found[field][1]
    assert client.get("/v1/jobs").json()["items"] == []
    assert fleet.wakes == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"name": "\\ud800"}', b"[" * 5000])
def test_what_is_no_json_object(client: httpx.Client, body: bytes) -> None:
    assert list(errors(client.post("/v1/experiments", content=body, headers=JSON))) == ["body"]


def test_a_study_is_read_as_a_spec_is(client: httpx.Client) -> None:
    body = json.dumps(STUDY)
    assert client.post("/v1/experiments", content=body.ljust(MAX_SPEC_BYTES), headers=JSON).status_code == 202
    too_long = client.post("/v1/experiments", content=body.ljust(MAX_SPEC_BYTES + 1), headers=JSON)
    assert (too_long.status_code, too_long.json()["code"]) == (413, "content_too_large")
    assert client.post("/v1/experiments", content=body).status_code == 415


def test_a_study_larger_than_the_cluster(client: httpx.Client, fleet: FakeFleet) -> None:
    fleet.capacity = Capacity(cpus=1, gpus=0)
    response = client.post("/v1/experiments", json=STUDY)  # of two workers
    assert (response.status_code, response.json()["code"]) == (409, "not_enough_workers")
    assert "ask for 1 at most" in response.json()["detail"]
    assert client.get("/v1/jobs").json()["items"] == []
