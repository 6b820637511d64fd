"""Documents and drivers that more than one suite of tests needs. `http` is an httpx.Client on the API (TestClient is
one)."""

from collections.abc import Iterable
from typing import Any, Self

import httpx

from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.lifecycle import Claim
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.spec.presets import with_settings
from service.store.engine import Store
from service.wire.worker import EpochRecord

# The rule of STPT's paper and nothing else: no lr_schedule, no averaging, no guards.
PAPER: dict[str, Any] = {
    "lr_set": "middle",
    "lr_schedule": "constant",
    "metric": "val_accuracy",
    "selector": "greedy",
    "guards": {"extend": False, "skip_dead": False, "rollback": False, "rescale_momentum": False},
}
JSON = {"Content-Type": "application/json"}  # a request that changes something says so, without a body too
SETTINGS = ("warmup", "pretrain", "main_train", "metric", "selector", "guards", "audit")  # of the method stpt


def nested(**document: Any) -> dict[str, Any]:
    """A spec as a document: settings of stpt that stand beside the keys of the job are put into each stpt of its
    methods."""
    settings = {key: document.pop(key) for key in SETTINGS if key in document}
    methods = document.pop("methods", ["stpt"])
    if not settings or not isinstance(methods, list):
        return document | {"methods": methods}
    return document | {"methods": [_with_settings(method, settings) for method in methods]}


def _with_settings(method: Any, settings: dict[str, Any]) -> Any:
    """The method with the settings, if it is stpt or in each of its variants, if it is a study; else unchanged."""
    if not (isinstance(method, dict) and method.get("name") == "study"):
        return with_settings(method, settings)
    variants = [{**one, "method": with_settings(one["method"], settings)} for one in method["variants"]]
    return method | {"variants": variants}


def spec_document(**changes: Any) -> dict[str, Any]:
    """A small valid JobSpec as JSON: 3 epochs of LeNet-5 on digits by the paper's rule, no warm-up. `changes`: as
    `nested` takes them."""
    pretrain = {"weights": "raw"} | changes.pop("pretrain", {})
    job = {"model": "lenet5", "dataset": "digits", "epochs": 3}
    return nested(**{**job, **PAPER, "pretrain": pretrain, **changes})


def branch_records(*learning_rates: float, chosen: int = 1) -> list[dict[str, Any]]:
    """The records of the branches of one Pre-train without a retry, of which branch number `chosen` wins."""
    return [
        {
            "number": number,
            "learning_rate": learning_rate,
            "metric": 0.5 if number == chosen else 0.4,
            "state": "chosen" if number == chosen else "lost",
            "iterations": 2,
            "samples": 128,
            "seconds": 0.25,
        }
        for number, learning_rate in enumerate(learning_rates, start=1)
    ]


def epoch_record(epoch: int, **changes: Any) -> dict[str, Any]:
    """A valid EpochRecord as JSON. Accuracies and losses depend on the epoch, so that records can be told apart."""
    return {
        "epoch": epoch,
        "phase": "stpt",
        "learning_rate": 0.1,
        "first_learning_rate": 0.1,
        "last_learning_rate": 0.09,
        "train_loss": 1 / epoch,
        "val_loss": 1.5 / epoch,
        "val_accuracy": 1 - 0.5 / epoch,
        "test_accuracy": 1 - 0.6 / epoch,
        "iterations": 24,
        "samples": 1536,
        "evaluation_samples": 504,
        "seconds": 2.5,
        "pretrain_seconds": 0.5,
        "main_train_seconds": 1.5,
        "branches": branch_records(0.1, 0.2, 0.05),
    } | changes


class Worker:
    """Plays the Ray job of one attempt, as the API sees it: the ticket first, then reports, then the outcome."""

    def __init__(self, http: httpx.Client, job_id: str) -> None:
        self._http, self._path = http, f"/internal/jobs/{job_id}"
        self.token = ""

    @classmethod
    def started(cls, http: httpx.Client, claim: Claim) -> Self:
        worker = cls(http, claim.job_id)
        worker.token = worker.exchange(claim.ticket).raise_for_status().json()["report_token"]
        return worker

    def exchange(self, ticket: str) -> httpx.Response:
        return self._http.post(f"{self._path}/ticket", json={"ticket": ticket})

    def report(self, record: dict[str, Any]) -> httpx.Response:
        return self._post("epochs", record)

    def report_trial(self, record: dict[str, Any]) -> httpx.Response:
        return self._post("trials", record)

    def beat(self, **heartbeat: Any) -> httpx.Response:
        return self._post("heartbeat", heartbeat)

    def finish(self, **outcome: Any) -> httpx.Response:
        return self._post("outcome", outcome or {"state": "succeeded"})

    def _post(self, what: str, document: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self._http.post(f"{self._path}/{what}", json=document, headers=headers)


def submit(http: httpx.Client, **changes: Any) -> str:
    """Submit the job `spec_document(**changes)`, and return its id."""
    job: dict[str, Any] = http.post("/v1/jobs", json=spec_document(**changes)).raise_for_status().json()
    return str(job["id"])


def claim(store: Store) -> Claim:
    """Play the controller: claim an attempt of the oldest waiting job."""
    claimed = jobs.claim_next(store)
    assert claimed is not None
    return claimed


def train(store: Store, records: Iterable[EpochRecord], **changes: Any) -> tuple[str, str]:
    """Make a running job with these epochs recorded, without the API; return its id and report token."""
    job_id, _ = submit_job(store, JobSpec.model_validate(spec_document(**changes)))
    token = reports.exchange_ticket(store, job_id, claim(store).ticket).report_token
    for record in records:
        reports.record_epoch(store, job_id, token, record)
    return job_id, token


def run_to_success(http: httpx.Client, store: Store, **changes: Any) -> str:
    """Take a job of three epochs (or `epochs=`) from submission to success, and return its id."""
    job_id = submit(http, **changes)
    worker = Worker.started(http, claim(store))
    for epoch in range(1, changes.get("epochs", 3) + 1):
        worker.report(epoch_record(epoch)).raise_for_status()
    worker.finish().raise_for_status()
    return job_id
