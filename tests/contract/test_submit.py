"""POST /v1/jobs: what is accepted, and what a refusal says."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.deps import Services
from service.cluster.base import Capacity
from service.cluster.controller import Leadership
from service.validation.door import MAX_SPEC_BYTES
from tests.builders import JSON, run_to_success, spec_document
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]


def post(client: httpx.Client, document: Any) -> httpx.Response:
    """As `json=`, and NaN and Infinity besides, as Python's json writes them."""
    return client.post("/v1/jobs", content=json.dumps(document), headers=JSON)


def test_accepted(client: httpx.Client, fleet: FakeFleet) -> None:
    response = client.post("/v1/jobs", json=spec_document(name="first"))
    job = response.json()
    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert (job["name"], job["state"], job["model"], job["dataset"]) == ("first", "queued", "lenet5", "digits")
    assert (job["attempt"], job["submission_id"], job["epochs"], job["epochs_done"]) == (0, None, 3, 0)
    assert job["spec"]["lr_set"] == {"kind": "named", "name": "middle", "max_learning_rate": 1.0}
    assert job["spec"]["optimizer"]["momentum"] == 0.9
    assert job["created_at"].endswith("Z")
    assert client.get(response.headers["Location"]).json() == job
    assert fleet.wakes == 1


# the changes to a valid spec; the field that is named, the value that is shown, a part of the message
REFUSED: dict[str, tuple[dict[str, Any], str, Any, str]] = {
    "unknown model": ({"model": "lenet"}, "model", "lenet", "did you mean lenet5"),
    "unknown preset": ({"lr_set": "narow"}, "lr_set.name", "narow", "'paper-alpha', 'narrow', 'middle', 'wide' or"),
    "no LRs": ({"lr_set": {"learning_rates": []}}, "lr_set.learning_rates", "[]", "at least 1 item"),
    "negative LR": ({"lr_set": {"learning_rates": [0.1, -0.5]}}, "lr_set.learning_rates[1]", -0.5, "greater than 0"),
    "LR 0": ({"lr_set": {"learning_rates": [0]}}, "lr_set.learning_rates[0]", 0, "greater than 0"),
    "LR NaN": (
        {"lr_set": {"learning_rates": [float("nan")]}},
        "lr_set.learning_rates[0]",
        "nan",
        "should be a finite number",
    ),
    "LR Infinity": (
        {"lr_set": {"learning_rates": [0.1, float("inf")]}},
        "lr_set.learning_rates[1]",
        "inf",
        "should be a finite number",
    ),
    "factor Infinity in a schedule": (
        {"lr_set": {"phases": [{"first_epoch": 1, "lr_set": {"factors": [float("-inf")]}}]}},
        "lr_set.phases[0].lr_set.factors[0]",
        "-inf",
        "should be a finite number",
    ),
    "epochs true": ({"epochs": True}, "epochs", True, "valid integer"),
    "epochs 0": ({"epochs": 0}, "epochs", 0, "greater than or equal to 1"),
    "workers false": ({"workers": False}, "workers", False, "valid integer"),
    "workers as text": ({"workers": "2"}, "workers", "2", "valid integer"),
    "unknown key": ({"learning_rate": 0.1}, "learning_rate", 0.1, "unknown key; did you mean"),
    "unknown inner key": (
        {"pretrain": {"iteration": 3}},
        "methods[0].pretrain.iteration",
        3,
        "unknown key; did you mean iterations? known: weights, iterations, placement, batch, max_retries",
    ),
    "batch not divisible": (
        {"global_batch_size": 64, "workers": 3},
        "global_batch_size",
        64,
        "must be a multiple of workers (3)",
    ),
    "alpha over an epoch": (  # digits: 1437 - 144 = 1293 training samples, 20 batches of 64
        {"pretrain": {"iterations": 21}},
        "methods[0].pretrain.iterations",
        21,
        "one epoch at most, which is 20 iterations",
    ),
    "alpha + beta over an epoch": (
        {"pretrain": {"iterations": 5}, "main_train": {"iterations": 16}},
        "methods[0].main_train.iterations",
        16,
        "one epoch at most, which is 20 iterations",
    ),
    "batch over the training set": ({"global_batch_size": 2000}, "global_batch_size", 2000, "has 1293 samples"),
    "NUL in the name": ({"name": "a\0b"}, "name", "a\0b", "U+0000 (a control character), which does not print"),
    "two lines in the experiment's": ({"experiment": "a\nb"}, "experiment", "a\nb", "has the character U+000A"),
    "path outside": (
        {"dataset": {"name": "image-folder", "path": "../etc"}},
        "dataset.path",
        "../etc",
        "inside the data folder",
    ),
    "path longer than the system allows": (
        {"dataset": {"name": "image-folder", "path": "a" * 300}},
        "dataset.path",
        "a" * 300,
        "put the tree there",
    ),
}


@pytest.mark.parametrize(("changes", "field", "value", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(
    client: httpx.Client, fleet: FakeFleet, changes: dict[str, Any], field: str, value: Any, message: str
) -> None:
    response = post(client, spec_document(**changes))
    problem = response.json()
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (problem["code"], problem["type"]) == ("invalid_input", "urn:forerun:error:invalid_input")
    assert (problem["title"], problem["status"], problem["instance"]) == ("Invalid input", 422, "/v1/jobs")
    (error,) = problem["errors"]
    assert error["field"] == field
    assert error["value"] == value
    assert type(error["value"]) is type(value)  # False is not 0
    assert message in error["message"]
    assert f"{field}: {error['message']}" in problem["detail"]
    assert client.get("/v1/jobs").json()["items"] == []
    assert fleet.wakes == 0


METHODS_REFUSED: dict[str, tuple[list[Any], str, Any, str]] = {
    "unknown method": (["hyperbend"], "methods[0]", "hyperbend", "'stpt', 'sweep', 'reference', 'replay'"),
    "twice the same": (["stpt", "stpt"], "methods", "['stpt', 'stpt']", "leave the repetition out"),
    "sweep of LR 0": ([{"name": "sweep", "learning_rates": [0]}], "methods[0].learning_rates[0]", 0, "greater than 0"),
    "replay of nothing": (["replay"], "methods[0]", "{'name': 'replay'}", "name a job, or give a schedule"),
    "replay of no job": (
        [{"name": "replay", "job": "job-0"}],
        "methods[0].job",
        "job-0",
        "GET /v1/jobs lists the jobs",
    ),
    "range test that falls": (
        [{"name": "lr-range-test", "max_learning_rate": 1e-8}],
        "methods[0].max_learning_rate",
        1e-8,
        "must be above min_learning_rate (1e-07); raise it, or lower that",
    ),
    "range test of too few iterations": (
        [{"name": "lr-range-test", "iterations": 9}],
        "methods[0].iterations",
        9,
        "greater than or equal to 10",
    ),
    "range test with another suggestion": (
        [{"name": "lr-range-test", "suggestion": "valley"}],
        "methods[0].suggestion",
        "valley",
        "'divergence' or 'steepest'",
    ),
    "range test under another schedule": (
        [{"name": "lr-range-test", "lr_schedule": "cosine"}],
        "methods[0].lr_schedule",
        "cosine",
        "'linear' or 'one-cycle'",
    ),
    "AutoLRS in no interval": (
        [{"name": "autolrs", "search_interval": [0.1, 0.01]}],
        "methods[0].search_interval",
        [0.1, 0.01],
        "must rise from the lowest learning rate to the highest; give the lower one first",
    ),
    "AutoLRS with trials too short to fit": (
        [{"name": "autolrs", "trial_iterations": 3}],
        "methods[0].trial_iterations",
        3,
        "greater than or equal to 4",
    ),
    "AutoLRS with trials longer than a stage": (
        [{"name": "autolrs", "trial_iterations": 21}],
        "methods[0].trial_iterations",
        21,
        "which has 20 (1293 samples / batch 64); lower it",
    ),
    "replay of other epochs": (
        ["stpt", {"name": "replay", "schedule": {"learning_rates": [0.1, 0.2]}}],
        "methods[1].schedule.learning_rates",
        2,
        "has 2 epochs, the job 3; set epochs to 2",
    ),
}


@pytest.mark.parametrize(("methods", "field", "value", "message"), METHODS_REFUSED.values(), ids=METHODS_REFUSED)
def test_methods_refused(client: httpx.Client, methods: list[Any], field: str, value: Any, message: str) -> None:
    response = post(client, spec_document() | {"methods": methods})
    (error,) = response.json()["errors"]
    assert (response.status_code, error["field"], error["value"]) == (422, field, value)
    assert message in error["message"]
    assert client.get("/v1/jobs").json()["items"] == []


def test_a_job_with_a_range_test(client: httpx.Client) -> None:
    response = client.post("/v1/jobs", json=spec_document(methods=["lr-range-test"]))
    assert response.status_code == 202
    assert response.json()["spec"]["methods"] == [
        {
            "name": "lr-range-test",
            "label": "lr-range-test",
            "min_learning_rate": 1e-7,
            "max_learning_rate": 10.0,
            "iterations": 100,
            "smoothing": 0.98,
            "divergence_threshold": 4.0,
            "suggestion": "steepest",
            "lr_schedule": "one-cycle",
        }
    ]


def test_a_budget_below_a_range_test_and_an_epoch(client: httpx.Client) -> None:
    document = spec_document(methods=["lr-range-test"], budget={"epochs": 2})
    for path in ("/v1/jobs", "/v1/plan"):
        response = client.post(path, json=document)
        (error,) = response.json()["errors"]
        assert (response.status_code, error["field"], error["value"]) == (422, "budget.epochs", 2)
        assert error["message"] == (
            "less than the search of lr-range-test (6400 samples) and an epoch (1280); give 6 at least, or let it "
            "search less"
        )


def test_a_job_that_replays_another(client: httpx.Client, services: Services) -> None:
    source = run_to_success(client, services.store, lr_schedule="cosine", warmup={"epochs": 1})
    replay = {"name": "replay", "job": source}
    job = client.post("/v1/jobs", json=spec_document(methods=[replay], seed=1)).json()
    schedule = {"learning_rates": [0.1, 0.1, 0.1], "lr_schedule": "cosine", "warmup_epochs": 1}
    schedule |= {"warmup_share": 0.0, "rescale_momentum": False}
    assert job["spec"]["methods"] == [replay | {"label": "replay", "schedule": schedule}]
    refused = client.post("/v1/jobs", json=spec_document(methods=[replay], epochs=4)).json()["errors"]
    assert [(error["field"], error["message"]) for error in refused] == [
        ("methods[0].schedule.learning_rates", "has 3 epochs, the job 4; set epochs to 3")
    ]


def test_a_job_that_has_not_ended_cannot_be_replayed(client: httpx.Client) -> None:
    source = client.post("/v1/jobs", json=spec_document()).json()["id"]
    (error,) = post(client, spec_document(methods=[{"name": "replay", "job": source}])).json()["errors"]
    assert (error["field"], error["value"]) == ("methods[0].job", source)
    assert "has 0 of 3 epochs of stpt 1 recorded" in error["message"]


def test_unknown_dataset_names_the_known_ones(client: httpx.Client) -> None:
    (error,) = post(client, spec_document(dataset="imagenet")).json()["errors"]
    assert error["field"] == "dataset"
    assert "imagenet" in str(error["value"])
    for name in ("digits", "mnist", "fashion-mnist", "cifar10", "tiny-imagenet", "image-folder"):
        assert name in error["message"]


def test_every_wrong_field_is_named(client: httpx.Client) -> None:
    document = spec_document(model="lenet", epochs=0, extra=1)
    assert {error["field"] for error in post(client, document).json()["errors"]} == {"model", "epochs", "extra"}


def test_64_learning_rates_and_no_more(client: httpx.Client) -> None:
    learning_rates = [0.001 * number for number in range(1, 66)]
    assert post(client, spec_document(lr_set={"learning_rates": learning_rates[:64]})).status_code == 202
    (error,) = post(client, spec_document(lr_set={"learning_rates": learning_rates})).json()["errors"]
    assert error["field"] == "lr_set.learning_rates"
    assert "at most 64 items" in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"name": "\\ud800"}', b"[" * 5000])
def test_what_is_no_json_object(client: httpx.Client, body: bytes) -> None:
    response = client.post("/v1/jobs", content=body, headers=JSON)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["body"]


def test_integer_of_thousands_of_digits(client: httpx.Client) -> None:
    for digits in (4000, 5000):  # below and above what Python's int accepts
        body = json.dumps(spec_document(seed=0)).replace('"seed": 0', f'"seed": {"9" * digits}')
        assert client.post("/v1/jobs", content=body, headers=JSON).status_code == 422


def test_spec_of_64_kib_and_not_a_byte_more(client: httpx.Client) -> None:
    body = json.dumps(spec_document())
    assert client.post("/v1/jobs", content=body.ljust(MAX_SPEC_BYTES), headers=JSON).status_code == 202
    response = client.post("/v1/jobs", content=body.ljust(MAX_SPEC_BYTES + 1), headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "content_too_large")
    assert response.json()["detail"] == "the body has 65537 bytes; it may have 65536 at most; shorten it"


def test_the_size_of_a_body_that_is_too_long_is_told_as_far_as_it_is_known(client: httpx.Client) -> None:
    problem = client.post("/v1/jobs", content=b" " * 200_000, headers=JSON).json()
    assert problem["detail"].startswith("the body has 200000 bytes")
    problem = client.post("/v1/jobs", content=iter([b" " * 100_000] * 2), headers=JSON).json()
    assert problem["detail"].startswith("the body has more than 65536 bytes")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", None])
def test_other_media_types(client: httpx.Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    response = client.post("/v1/jobs", content=json.dumps(spec_document()), headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert response.headers["Content-Type"] == "application/problem+json"


def test_media_type_with_parameters(client: httpx.Client) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/v1/jobs", content=json.dumps(spec_document()), headers=headers).status_code == 202


# --- what the cluster and the disk have ------------------------------------------------------------


def test_more_workers_than_the_cluster_has(client: httpx.Client, fleet: FakeFleet) -> None:
    fleet.capacity = Capacity(cpus=4, gpus=1)
    response = client.post("/v1/jobs", json=spec_document(workers=8))
    problem = response.json()
    assert (response.status_code, problem["code"]) == (409, "not_enough_workers")
    assert "4 CPUs and 1 GPUs" in problem["detail"]
    assert client.post("/v1/jobs", json=spec_document(workers=4)).status_code == 202


def test_the_cluster_of_a_service_that_stands_by_decides_nothing(client: httpx.Client, fleet: FakeFleet) -> None:
    fleet.capacity, fleet.leadership = Capacity(cpus=1, gpus=0), Leadership(leads=False, url=None)
    assert client.post("/v1/jobs", json=spec_document(workers=8)).status_code == 202


def test_capacity_is_not_waited_for(client: httpx.Client, fleet: FakeFleet) -> None:
    fleet.trouble = "connection refused"
    assert client.post("/v1/jobs", json=spec_document(workers=8)).status_code == 202


def test_missing_dataset_names_the_folder(client: httpx.Client, services: Services) -> None:
    response = client.post("/v1/jobs", json=spec_document(dataset="mnist"))
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert (error["field"], error["value"]) == ("dataset", "mnist")
    assert str(services.data_dir / "MNIST/raw") in error["message"]


def test_dataset_that_is_there_or_may_be_fetched(client: httpx.Client, services: Services) -> None:
    assert client.post("/v1/jobs", json=spec_document(dataset={"name": "mnist", "download": True})).status_code == 202
    (services.data_dir / "MNIST/raw").mkdir(parents=True)
    assert client.post("/v1/jobs", json=spec_document(dataset="mnist")).status_code == 202


def test_image_folder_is_counted(client: httpx.Client, services: Services) -> None:
    for split in ("train", "test"):
        (services.data_dir / "pets" / split / "cat").mkdir(parents=True)
    for number in range(20):
        (services.data_dir / f"pets/train/cat/{number}.png").touch()
    folder = {"name": "image-folder", "path": "pets"}
    assert client.post("/v1/jobs", json=spec_document(dataset=folder, global_batch_size=4)).status_code == 202
    response = client.post("/v1/jobs", json=spec_document(dataset=folder, global_batch_size=64))
    assert [error["field"] for error in response.json()["errors"]] == ["global_batch_size"]


def test_data_that_only_the_workers_see_is_not_looked_for(services: Services) -> None:
    with TestClient(create_app(replace(services, data_is_local=False))) as client:
        assert client.post("/v1/jobs", json=spec_document(dataset="mnist")).status_code == 202


# --- Idempotency-Key -------------------------------------------------------------------------------


def test_same_key_same_job(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/v1/jobs", json=spec_document(), headers=headers)
    again = client.post("/v1/jobs", json=dict(reversed(spec_document().items())), headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_same_key_when_the_cluster_has_shrunk(client: httpx.Client, fleet: FakeFleet) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/v1/jobs", json=spec_document(workers=4), headers=headers)
    fleet.capacity = Capacity(cpus=2, gpus=0)
    again = client.post("/v1/jobs", json=spec_document(workers=4), headers=headers).json()
    waits = {"reason": "waits for 4 CPUs, the cluster has 2", "queue_position": None}
    assert again == first.json() | waits
    assert client.post("/v1/jobs", json=spec_document(workers=4)).status_code == 409


def test_same_key_other_spec(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/v1/jobs", json=spec_document(), headers=headers).json()
    response = client.post("/v1/jobs", json=spec_document(epochs=4), headers=headers)
    assert (response.status_code, response.json()["code"]) == (409, "idempotency_conflict")
    assert first["id"] in response.json()["detail"]
    assert client.post("/v1/jobs", json=spec_document(epochs=4)).status_code == 202  # no key: no conflict


def test_same_key_at_the_same_time(client: httpx.Client) -> None:
    def send(_: int) -> httpx.Response:
        return client.post("/v1/jobs", json=spec_document(), headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(send, range(16)))
    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["id"] for response in responses}) == 1
    assert len(client.get("/v1/jobs").json()["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "a b", "caf\xe9"])
def test_keys_that_are_none(client: httpx.Client, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    response = client.post("/v1/jobs", json=spec_document(), headers=headers)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["idempotency-key"]
