"""GET /v1/jobs/{id}/study, /v1/study and /ramp: the table of a study, or of an experiment's, as JSON, CSV and figures;
the largest batches of a ramp."""

from typing import Any

import httpx
import pytest

from service.jobs import reports
from service.store.engine import Store
from service.wire.worker import TrialRecord
from tests.builders import JSON, Worker, claim, epoch_record, submit

pytest_plugins = ["tests.databases"]

STUDY = {
    "name": "study",
    "batch_sizes": [64, 256],
    "variants": [{"name": "none", "method": "fixed"}, {"name": "searched", "method": "stpt"}],
}


@pytest.fixture
def job_id(client: httpx.Client, sqlite_store: Store) -> str:
    """Two seeds of one point, a trial that diverged at another, and one that still trains."""
    job_id = submit(client, methods=["cosine", STUDY], seeds=2, epochs=2)
    worker = Worker.started(client, claim(sqlite_store))
    trials: list[tuple[str, int, int, str, list[float]]] = [
        ("none", 64, 0, "completed", [0.875, 0.5]),
        ("none", 64, 1, "completed", [0.5, 0.75]),
        ("none", 256, 0, "diverged", [0.0]),
        ("searched", 64, 0, "running", [0.9]),
    ]
    for number, (variant, batch, seed, state, accuracies) in enumerate(trials, start=1):
        config = {"variant": variant, "global_batch_size": batch, "optimizer": "lars"}
        record = TrialRecord(label="study", trial=number, seed=seed, config=config, epochs=2, state="running")
        reports.record_trial(sqlite_store, job_id, worker.token, record)
        for epoch, accuracy in enumerate(accuracies, start=1):
            more = {"label": "study", "trial": number, "phase": "scheduled", "branches": []}
            worker.report(epoch_record(epoch, **more, test_accuracy=accuracy)).raise_for_status()
        if state == "diverged":
            ended = record.model_copy(update={"state": state})
            reports.record_trial(sqlite_store, job_id, worker.token, ended)
    return job_id


def test_a_study_as_json(client: httpx.Client, job_id: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/study")
    assert (response.headers["Content-Type"], response.headers["Vary"]) == ("application/json", "Accept")
    answer = response.json()
    assert answer["job_id"] == job_id
    points = [(item["variant"], item["global_batch_size"]) for item in answer["items"]]
    assert points == [("none", 64), ("none", 256), ("searched", 64), ("searched", 256)]
    both, diverged, running, pending = answer["items"]
    assert (both["seeds"], both["diverged"]) == (2, 0)
    assert both["final_test_accuracy"] == {"mean": 0.625, "spread": pytest.approx(0.25 / 2**0.5)}
    assert both["best_test_accuracy"] == {"mean": 0.8125, "spread": pytest.approx(0.125 / 2**0.5)}
    assert (diverged["seeds"], diverged["diverged"]) == (1, 1)
    assert diverged["final_test_accuracy"] == {"mean": 0.0, "spread": None}
    for nothing in (running, pending):
        assert (nothing["seeds"], nothing["best_test_accuracy"]) == (0, {"mean": None, "spread": None})


def test_a_study_as_csv_and_as_figures(client: httpx.Client, job_id: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/study", headers={"Accept": "text/csv"})
    assert response.headers["Content-Disposition"] == f'attachment; filename="{job_id}-study.csv"'
    header, first, second, *_ = response.text.splitlines()
    assert header == (
        "variant,global_batch_size,seeds,diverged,final_test_accuracy,final_test_accuracy_spread,best_test_accuracy,"
        "best_test_accuracy_spread"
    )
    assert first.startswith("none,64,2,0,0.625,0.1767")
    assert second == "none,256,1,1,0.0,,0.0,"
    svg = client.get(f"/v1/jobs/{job_id}/study?format=svg")
    assert (svg.headers["Content-Type"], svg.content[:5]) == ("image/svg+xml", b"<?xml")
    assert svg.headers["Content-Disposition"] == f'inline; filename="{job_id}-study.svg"'
    assert client.get(f"/v1/jobs/{job_id}/study?format=png").content.startswith(b"\x89PNG")


def test_a_job_without_a_study(client: httpx.Client) -> None:
    job_id = submit(client, methods=["stpt", "cosine"])
    response = client.get(f"/v1/jobs/{job_id}/study")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.json()["detail"] == f"job {job_id} has no study; its runs are stpt, cosine"
    assert client.get("/v1/jobs/job-0/study").status_code == 404


@pytest.mark.parametrize("wanted", [{"batch": 256}, {"batch": 256, "optimizer": "lars"}])
def test_its_trials_are_found_by_their_own_batch_and_optimizer(
    client: httpx.Client, job_id: str, wanted: dict[str, str]
) -> None:
    steps = client.get("/v1/lr-history", params=wanted).json()["items"]
    assert [(step["job_id"], step["method"], step["trial"]) for step in steps] == [(job_id, "study", 3)]


# --- the studies of an experiment ----------------------------------------------------------------------


def study_job(client: httpx.Client, store: Store, batch: int, accuracies: dict[str, float], **changes: Any) -> str:
    """A job of the experiment "table 1/$" that has trained these variants at the batch, and goes on."""
    variants = [{"name": name, "method": "fixed"} for name in accuracies]
    study = {"name": "study", "batch_sizes": [batch], "variants": variants}
    job_id = submit(
        client, **{"methods": [study], "epochs": 1, "experiment": "table 1/$", "global_batch_size": batch} | changes
    )
    worker = Worker.started(client, claim(store))
    for number, (variant, accuracy) in enumerate(accuracies.items(), start=1):
        config = {"variant": variant, "global_batch_size": batch, "optimizer": "sgd"}
        seed = changes.get("seed", 0)
        record = TrialRecord(label="study", trial=number, seed=seed, config=config, epochs=1, state="running")
        reports.record_trial(store, job_id, worker.token, record)
        more = {"label": "study", "trial": number, "phase": "scheduled", "branches": []}
        worker.report(epoch_record(1, **more, test_accuracy=accuracy)).raise_for_status()
    return job_id


def table_of(client: httpx.Client) -> list[tuple[str, int, int, float]]:
    items = client.get("/v1/study", params={"experiment": "table 1/$"}).raise_for_status().json()["items"]
    names = ("variant", "global_batch_size", "seeds")
    return [(*(item[name] for name in names), item["final_test_accuracy"]["mean"]) for item in items]


def test_the_studies_of_an_experiment_are_one_table(client: httpx.Client, sqlite_store: Store) -> None:
    submit(client, methods=["cosine"], epochs=2, experiment="table 1/$")  # no study
    claim(sqlite_store)
    study_job(client, sqlite_store, 512, {"lars, 1": 0.5, "lars, 2": 0.75})
    study_job(client, sqlite_store, 1024, {"lars, 2": 0.25, "lars, 3": 0.125}, workers=2)
    study_job(client, sqlite_store, 512, {"lars, 1": 0.0}, experiment="another")
    points = [("lars, 1", 512), ("lars, 2", 512), ("lars, 2", 1024), ("lars, 3", 1024)]
    accuracies = [0.5, 0.75, 0.25, 0.125]
    expected = [(*point, 1, accuracy) for point, accuracy in zip(points, accuracies, strict=True)]
    assert table_of(client) == expected
    asked = {"params": {"experiment": "table 1/$"}}
    answer = client.get("/v1/study", **asked)
    assert (answer.json()["experiment"], answer.headers["Vary"]) == ("table 1/$", "Accept")
    table = client.get("/v1/study", **asked, headers={"Accept": "text/csv"})
    assert table.headers["Content-Disposition"] == 'attachment; filename="study.csv"'
    assert table.text.splitlines()[3] == '"lars, 2",1024,1,0,0.25,,0.25,'
    svg = client.get("/v1/study", params={"experiment": "table 1/$", "format": "svg"})
    assert svg.headers["Content-Type"] == "image/svg+xml"
    for text in ("lenet5 on digits (table 1/$)", "batch size 512", "batch size 1024"):
        assert f"<!-- {text} -->" in svg.text


def test_of_an_experiment_other_seeds_add_up_and_a_job_tried_again_goes_before(
    client: httpx.Client, sqlite_store: Store
) -> None:
    for seed, accuracy in ((0, 0.5), (1, 0.75), (1, 0.25)):
        study_job(client, sqlite_store, 512, {"lars": accuracy}, seed=seed)
    assert table_of(client) == [("lars", 512, 2, 0.375)]


LARS = {"name": "lars", "method": "fixed", "optimizer": "lars"}


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"epochs": 2}, "epochs"),
        ({"model": "lenet5-bn"}, "model"),
        ({"methods": [{"name": "study", "batch_sizes": [512], "variants": [LARS]}]}, "variant 'lars' at batch 512"),
    ],
)
def test_studies_that_are_no_one_table(
    client: httpx.Client, sqlite_store: Store, changes: dict[str, Any], differs: str
) -> None:
    study_job(client, sqlite_store, 512, {"lars": 0.5})
    other = study_job(client, sqlite_store, 1024, {"lars": 0.5}, **changes)
    response = client.get("/v1/study", params={"experiment": "table 1/$"})
    [error] = response.json()["errors"]
    assert (response.status_code, error["field"], error["value"]) == (422, "experiment", "table 1/$")
    assert error["message"] == f"{differs} of {other} is not that of its studies before; ask for the study of each job"


def test_what_ended_without_a_result_is_in_no_table(client: httpx.Client, sqlite_store: Store) -> None:
    study = {"name": "study", "batch_sizes": [512], "variants": [LARS]}
    mistaken = submit(client, experiment="table 1/$", epochs=99, methods=[study], global_batch_size=512)
    assert client.post(f"/v1/jobs/{mistaken}/cancel", headers=JSON).status_code == 202
    study_job(client, sqlite_store, 512, {"lars": 0.5})
    assert table_of(client) == [("lars", 512, 1, 0.5)]


def test_an_experiment_without_a_study(client: httpx.Client) -> None:
    submit(client, methods=["cosine"], experiment="plain")
    for experiment in ("plain", "none"):
        response = client.get("/v1/study", params={"experiment": experiment})
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert response.json()["detail"].startswith(f"no job of the experiment '{experiment}' has a study; ")
    for query in ("", "?experiment=", "?experiment=%00", "?experiment=plain&format=pdf"):
        assert client.get(f"/v1/study{query}").status_code == 422


# --- the batch ramp ------------------------------------------------------------------------------------


def test_a_ramp_has_the_largest_batch_of_each_phase(client: httpx.Client, sqlite_store: Store) -> None:
    """Seed 0: 64 and 128 are good, 256 falls, and is good by momentum. Seed 1 has one trial, which still trains."""
    job_id = submit(client, methods=["batch-ramp"], seeds=2, epochs=1)
    worker = Worker.started(client, claim(sqlite_store))
    for number, accuracy in enumerate([0.9, 0.95, 0.5, 0.95, None], start=1):
        values = {"label": "batch-ramp", "trial": number, "seed": number // 5, "epochs": 1, "state": "running"}
        values["config"] = {"global_batch_size": 64}
        reports.record_trial(sqlite_store, job_id, worker.token, TrialRecord.model_validate(values))
        if accuracy is not None:
            more = {"label": "batch-ramp", "trial": number, "phase": "scheduled", "branches": []}
            worker.report(epoch_record(1, **more, val_accuracy=accuracy)).raise_for_status()
    answer = client.get(f"/v1/jobs/{job_id}/ramp").raise_for_status().json()
    assert answer["job_id"] == job_id
    by_rate = {"global_batch_size": 128, "learning_rate": 0.1 * 2**0.5, "momentum": 0.9}
    momentum = 1 - 0.1 / 2**0.5
    by_momentum = {"global_batch_size": 256, "learning_rate": 0.1 * 2**0.5, "momentum": momentum}
    assert answer["items"] == [
        {
            "seed": 0,
            "by_learning_rate": pytest.approx(by_rate | {"effective_learning_rate": 2**0.5}),
            "by_momentum": pytest.approx(by_momentum | {"effective_learning_rate": 2.0}),
        },
        {"seed": 1, "by_learning_rate": None, "by_momentum": None},
    ]


def test_what_diverged_has_fallen_and_what_was_lost_is_no_step_of_a_ramp(
    client: httpx.Client, sqlite_store: Store
) -> None:
    """64 is good, 128 was lost with its attempt and is good the second time, 256 diverges, and fails by momentum."""
    ramp = {"name": "batch-ramp", "tolerance": 1.0}
    job_id = submit(client, methods=[ramp], epochs=1)
    worker = Worker.started(client, claim(sqlite_store))
    trials = [(64, 0.98, "completed"), (None, None, "failed"), (128, 0.98, "completed")]
    trials += [(256, 0.1, "diverged"), (256, None, "failed")]
    for number, (batch, accuracy, state) in enumerate(trials, start=1):
        config = {} if batch is None else {"global_batch_size": batch}
        record = TrialRecord(label="batch-ramp", trial=number, seed=0, config=config, epochs=1, state="running")
        reports.record_trial(sqlite_store, job_id, worker.token, record)
        if accuracy is not None:
            more = {"label": "batch-ramp", "trial": number, "phase": "scheduled", "branches": []}
            worker.report(epoch_record(1, **more, val_accuracy=accuracy)).raise_for_status()
        if state != "completed":
            ended = record.model_copy(update={"state": state})
            reports.record_trial(sqlite_store, job_id, worker.token, ended)
        [found] = client.get(f"/v1/jobs/{job_id}/ramp").raise_for_status().json()["items"]
        by_rate = found["by_learning_rate"]["global_batch_size"]
        assert (by_rate, found["by_momentum"]) == (64 if number < 3 else 128, None)


def test_a_job_without_a_ramp(client: httpx.Client) -> None:
    job_id = submit(client, methods=["cosine"])
    response = client.get(f"/v1/jobs/{job_id}/ramp")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.json()["detail"] == f"job {job_id} has no batch-ramp; its runs are cosine"
