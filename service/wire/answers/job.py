"""Answers about jobs: what was asked for, and where it stands."""

from datetime import datetime
from typing import Any

from pydantic import Field

from service.spec.job import JobSpec
from service.wire.answers.base import JOB_ID, Answer, example
from service.wire.states import JobState

# An example: a job in its third epoch.
_SPEC = JobSpec.model_validate(JobSpec.model_json_schema()["examples"][0])
_JOB = {
    "id": JOB_ID,
    "name": _SPEC.name,
    "experiment": "",
    "state": "running",
    "reason": None,
    "queue_position": None,
    "priority": 0,
    "time_limit": None,
    "retry_of": None,
    "error": None,
    "model": _SPEC.model,
    "dataset": _SPEC.dataset.name,
    "spec": _SPEC.model_dump(mode="json"),
    "owner": "alice",
    "attempt": 1,
    "submission_id": f"{JOB_ID}-a1",
    "created_at": "2026-01-01T12:00:00Z",
    "started_at": "2026-01-01T12:00:09Z",
    "finished_at": None,
    "epochs": _SPEC.epochs,
    "trials": 1,
    "epochs_done": 3,
    "learning_rate": 0.085,
    "val_accuracy": 0.9236,
    "test_accuracy": 0.925,
    "links": {
        "self": f"/v1/jobs/{JOB_ID}",
        "epochs": f"/v1/jobs/{JOB_ID}/epochs",
        "lr_history": f"/v1/jobs/{JOB_ID}/lr-history",
        "events": f"/v1/jobs/{JOB_ID}/events",
        "ray_dashboard": f"http://127.0.0.1:8265/#/jobs/{JOB_ID}-a1",
    },
}


class JobError(Answer):
    """Why a job failed, as a code and as a sentence."""

    code: str = Field(description="Code of the failure, stable: programs go by it.", examples=["diverged"])
    message: str = Field(description="What failed, in a sentence.")


class Links(Answer):
    """Links from a job to where to read on; all but `ray_dashboard` are paths of this API."""

    self: str = Field(description="The job itself.")
    epochs: str = Field(description="The epochs of the job.")
    lr_history: str = Field(description="The learning rates of the job, epoch by epoch.")
    events: str = Field(description="What happens to the job, live.")
    ray_dashboard: str | None = Field(description="The attempt's page in Ray's dashboard; null: no attempt yet.")


class Job(Answer):
    """A job: what was asked for, where it stands, and what its first training came to so far."""

    model_config = example(_JOB)

    id: str = Field(description="Id of the job.", examples=["job-0123456789abcdef"])
    name: str = Field(description="Its name in the spec; several jobs may share one.")
    experiment: str = Field(description="What the jobs of one study share; empty: it belongs to none.")
    state: JobState = Field(description="Where it stands; succeeded, failed and cancelled are final.")
    reason: str | None = Field(
        description="Why it is in this state, in a sentence, as what it waits for; null: it trains, or has ended."
    )
    queue_position: int | None = Field(
        description="Place among the jobs that wait for workers, 1 for the next one; null: it waits for none, is tried "
        "again later, or takes more than the cluster has."
    )
    priority: int = Field(description="Of the jobs that wait those with the highest priority are submitted first.")
    time_limit: int | None = Field(description="Seconds that its attempts may take together; null: no limit.")
    retry_of: str | None = Field(description="Id of the failed job that it goes on from; null: it began anew.")
    error: JobError | None = Field(description="Why a failed job failed.")
    model: str = Field(description="Name of the model.")
    dataset: str = Field(description="Name of the dataset.")
    spec: dict[str, Any] = Field(description="The JobSpec, with every default filled in.")
    owner: str | None = Field(None, description="Of the API key that it was submitted by; null: there was no key.")
    attempt: int = Field(description="Number of the live or last attempt; 0: none yet.")
    submission_id: str | None = Field(description="Id of that attempt in Ray; null: no attempt yet.")
    created_at: datetime = Field(description="When it was accepted.")
    started_at: datetime | None = Field(description="When it first ran; null: not yet.")
    finished_at: datetime | None = Field(description="When it ended; null: not yet.")
    epochs: int = Field(
        description="Epochs of the first training: those that the spec asks for, or once it has begun, as many as its "
        "budget has room for."
    )
    trials: int = Field(description="Trainings of the job, over all its methods.")
    epochs_done: int = Field(description="Epochs recorded so far of the first training, as are the values below.")
    learning_rate: float | None = Field(
        description="Learning rate of the last recorded epoch, as are the accuracies; null: none yet."
    )
    val_accuracy: float | None = Field(description="Validation accuracy, from 0 to 1; null: no epoch is recorded yet.")
    test_accuracy: float | None = Field(description="Test accuracy, from 0 to 1; null: no epoch is recorded yet.")
    links: Links = Field(description="Where to read on.")


class JobPage(Answer):
    """A page of the list of jobs, newest first."""

    model_config = example({"items": [_JOB], "next_cursor": None})

    items: list[Job] = Field(description="The jobs of this page.")
    next_cursor: str | None = Field(description="Goes into `cursor` for the next page; null: this is the last one.")
