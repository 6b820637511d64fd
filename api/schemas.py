"""What the API answers with. Times are ISO 8601 in UTC; a metric that was not finite is null."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from service.spec.job import JobSpec
from service.spec.methods.base import Schedule
from service.store import tables
from service.wire.states import JobState
from service.wire.worker import AuditRecord


class Schema(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


# Examples: one job in its third epoch, and what there is to read of it.
_JOB_ID = "job-0123456789abcdef"
_SPEC = JobSpec.model_validate(JobSpec.model_json_schema()["examples"][0])
_OF_THE_EPOCH = {"method": "stpt", "trial": 1, "epoch": 3}
_EPOCH = {
    **_OF_THE_EPOCH,
    "attempt": 1,
    "phase": "stpt",
    "learning_rate": 0.085,
    "first_learning_rate": 0.068,
    "last_learning_rate": 0.0596,
    "train_loss": 0.21,
    "val_loss": 0.25,
    "val_accuracy": 0.9236,
    "test_accuracy": 0.925,
    "retries": 0,
    "rollbacks": 0,
    "iterations": 34,
    "samples": 2176,
    "evaluation_samples": 1656,
    "seconds": 1.42,
    "pretrain_seconds": 0.51,
    "main_train_seconds": 0.83,
    "audit": None,
    "source_trial": None,
    "source_epoch": None,
    "recorded_at": "2026-01-01T12:00:30.500000Z",
}
_BRANCH = {
    "number": 2,
    "retry": 0,
    "learning_rate": 0.085,
    "metric": 0.8819,
    "end_metric": None,
    "state": "chosen",
    "iterations": 2,
    "samples": 128,
    "seconds": 0.06,
}
_LR_STEP = {name: _EPOCH[name] for name in ("method", "trial", "epoch", "attempt", "phase", "learning_rate")} | {
    "first_learning_rate": 0.068,
    "last_learning_rate": 0.0596,
    "candidates": [0.1, 0.085, 0.07],
    "val_accuracy": 0.9236,
    "val_loss": 0.25,
    "test_accuracy": 0.925,
    "samples": 2176,
    "samples_so_far": 5632,
    "seconds": 1.42,
}
_JOB = {
    "id": _JOB_ID,
    "name": _SPEC.name,
    "experiment": "",
    "state": "running",
    "error": None,
    "model": _SPEC.model,
    "dataset": _SPEC.dataset.name,
    "spec": _SPEC.model_dump(mode="json"),
    "attempt": 1,
    "submission_id": f"{_JOB_ID}-a1",
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
        "self": f"/v1/jobs/{_JOB_ID}",
        "epochs": f"/v1/jobs/{_JOB_ID}/epochs",
        "lr_history": f"/v1/jobs/{_JOB_ID}/lr-history",
        "events": f"/v1/jobs/{_JOB_ID}/events",
        "ray_dashboard": f"http://127.0.0.1:8265/#/jobs/{_JOB_ID}-a1",
    },
}


def example(*documents: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(documents)})


class FieldProblem(Schema):
    field: str = Field(description="Path of the field as it was sent.", examples=["lr_set.factors[2]"])
    value: Any = Field(description="The value given, shortened when long.", examples=[-0.5])
    message: str = Field(examples=["Input should be greater than 0"])


class Problem(Schema):
    """An error as RFC 9457 has it."""

    type: str = Field(examples=["urn:forerun:error:invalid_input"])
    title: str = Field(examples=["Invalid input"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["lr_set.factors[2]: Input should be greater than 0"])
    code: str = Field(description="Stable: programs go by it.", examples=["invalid_input"])
    instance: str = Field(description="Path of the request.", examples=["/v1/jobs"])
    errors: list[FieldProblem] = Field([], description="With code invalid_input: one entry a wrong field.")


class JobError(Schema):
    code: str = Field(description="Stable: programs go by it.", examples=["diverged"])
    message: str


class Links(Schema):
    """Where to read on; all but `ray_dashboard` are paths of this API."""

    self: str
    epochs: str
    lr_history: str
    events: str
    ray_dashboard: str | None = Field(description="The attempt's page in Ray's dashboard; null: no attempt yet.")


class Job(Schema):
    model_config = example(_JOB)

    id: str = Field(examples=["job-0123456789abcdef"])
    name: str
    experiment: str
    state: JobState
    error: JobError | None = Field(description="Why a failed job failed.")
    model: str
    dataset: str
    spec: dict[str, Any] = Field(description="The JobSpec, with every default filled in.")
    attempt: int = Field(description="Number of the live or last attempt; 0: none yet.")
    submission_id: str | None = Field(description="That attempt's id in Ray.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    epochs: int = Field(description="Epochs asked for, of each trial.")
    trials: int = Field(description="Trainings of the job, over all its methods.")
    epochs_done: int = Field(description="Epochs recorded so far of the first one, as are the values below.")
    learning_rate: float | None = Field(description="Of the last recorded epoch, as are the accuracies.")
    val_accuracy: float | None
    test_accuracy: float | None
    links: Links

    @classmethod
    def of(cls, job: tables.Job, last: tables.Epoch | None, dashboard_url: str) -> Self:
        submission_id = next((a.submission_id for a in job.attempts if a.number == job.attempt), None)
        path = f"/v1/jobs/{job.id}"
        return cls(
            id=job.id,
            name=job.name,
            experiment=job.experiment,
            state=job.job_state,
            error=JobError(code=job.error_code, message=job.error_message or "") if job.error_code else None,
            model=job.model,
            dataset=job.dataset,
            spec=job.spec,
            attempt=job.attempt,
            submission_id=submission_id,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            epochs=job.spec["epochs"],
            trials=job.trials,
            epochs_done=last.epoch if last else 0,
            learning_rate=last.learning_rate if last else None,
            val_accuracy=last.val_accuracy if last else None,
            test_accuracy=last.test_accuracy if last else None,
            links=Links(
                self=path,
                epochs=f"{path}/epochs",
                lr_history=f"{path}/lr-history",
                events=f"{path}/events",
                ray_dashboard=f"{dashboard_url.rstrip('/')}/#/jobs/{submission_id}" if submission_id else None,
            ),
        )


class JobPage(Schema):
    """Jobs, newest first."""

    model_config = example({"items": [_JOB], "next_cursor": None})

    items: list[Job]
    next_cursor: str | None = Field(description="Goes into `cursor` for the next page; null: this is the last one.")


class Epoch(Schema):
    """One epoch of one trial. `samples` and `iterations` count all branches and retries."""

    model_config = example(_EPOCH)

    method: str
    trial: int
    epoch: int
    attempt: int
    phase: str = Field(description="warmup, stpt or scheduled")
    learning_rate: float = Field(description="Before the envelope.")
    first_learning_rate: float = Field(description="Of the epoch's first iteration, under the envelope.")
    last_learning_rate: float = Field(description="Of its last iteration.")
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float
    test_accuracy: float
    retries: int
    rollbacks: int = Field(description="Main-trains that were undone.")
    iterations: int
    samples: int
    evaluation_samples: int
    seconds: float
    pretrain_seconds: float
    main_train_seconds: float
    audit: AuditRecord | None = Field(description="What the epoch's losers would have come to, where it was audited.")
    source_trial: int | None = Field(description="Trial whose checkpoint the epoch went on from; null: in one process.")
    source_epoch: int | None = Field(description="Epoch of that checkpoint.")
    recorded_at: datetime

    @classmethod
    def of(cls, row: tables.Epoch, **more: Any) -> Self:
        columns = {name: getattr(row, name) for name in Epoch.model_fields if name not in ("method", "trial")}
        return cls(method=row.trial.run.method, trial=row.trial.number, **columns, **more)


class Branch(Schema):
    """One candidate learning rate of one Pre-train."""

    model_config = example(_BRANCH)

    number: int = Field(description="From 1, over all retries of the epoch.")
    retry: int
    learning_rate: float
    metric: float | None = Field(description="What the branch was judged by; null: not finite.")
    end_metric: float | None = Field(description="Audited: validation metric at the end of the epoch.")
    state: str = Field(description="chosen, lost, diverged or rolled_back")
    iterations: int
    samples: int
    seconds: float


class EpochWithBranches(Epoch):
    model_config = example({**_EPOCH, "branches": [_BRANCH]})

    branches: list[Branch]


class BranchOfEpoch(Branch):
    model_config = example({**_BRANCH, **_OF_THE_EPOCH})

    method: str
    trial: int
    epoch: int

    @classmethod
    def of(cls, row: tables.Branch) -> Self:
        epoch = row.epoch_row
        columns = {name: getattr(row, name) for name in Branch.model_fields}
        return cls(method=epoch.trial.run.method, trial=epoch.trial.number, epoch=epoch.epoch, **columns)


class EpochList(Schema):
    model_config = example({"job_id": _JOB_ID, "items": [_EPOCH]})

    job_id: str
    items: list[Epoch]


class BranchList(Schema):
    model_config = example({"job_id": _JOB_ID, "items": [{**_BRANCH, **_OF_THE_EPOCH}]})

    job_id: str
    items: list[BranchOfEpoch]


class LrStep(Schema):
    """The learning rate of one epoch, what it was chosen from, and what it led to."""

    model_config = example(_LR_STEP)

    method: str
    trial: int
    epoch: int
    attempt: int = Field(description="That recorded it. One of an older attempt stands until a newer one replaces it.")
    phase: str = Field(description="warmup, stpt or scheduled")
    learning_rate: float = Field(description="Before the envelope.")
    first_learning_rate: float = Field(description="Of the epoch's first iteration, under the envelope.")
    last_learning_rate: float = Field(description="Of its last iteration.")
    candidates: list[float] = Field(description="The learning rates tried, in order, those of retries included.")
    val_accuracy: float
    val_loss: float | None
    test_accuracy: float
    samples: int = Field(description="Training samples processed in this epoch, all branches included.")
    samples_so_far: int = Field(description="The same, of this and all earlier epochs of the trial.")
    seconds: float


class LrHistory(Schema):
    model_config = example({"job_id": _JOB_ID, "items": [_LR_STEP]})

    job_id: str
    items: list[LrStep]

    @classmethod
    def of(cls, job_id: str, rows: Sequence[tables.Epoch]) -> Self:
        so_far: dict[int, int] = {}
        items = []
        for row in rows:
            so_far[row.trial_id] = so_far.get(row.trial_id, 0) + row.samples
            items.append(
                LrStep(
                    method=row.trial.run.method,
                    trial=row.trial.number,
                    epoch=row.epoch,
                    attempt=row.attempt,
                    phase=row.phase,
                    learning_rate=row.learning_rate,
                    first_learning_rate=row.first_learning_rate,
                    last_learning_rate=row.last_learning_rate,
                    candidates=[branch.learning_rate for branch in row.branches],
                    val_accuracy=row.val_accuracy,
                    val_loss=row.val_loss,
                    test_accuracy=row.test_accuracy,
                    samples=row.samples,
                    samples_so_far=so_far[row.trial_id],
                    seconds=row.seconds,
                )
            )
        return cls(job_id=job_id, items=items)


class JobSchedule(Schedule):
    """What `forerun.schedules.Replay` and the method `replay` train by."""

    job_id: str
    method: str
    trial: int
    iterations_per_epoch: int


class ReplayedEpoch(Schema):
    epoch: int
    recorded_learning_rate: float
    learning_rate: float | None = Field(description="What the other selector would have chosen; null: all diverged.")
    regret: float | None = Field(description="How much better the best audited branch ended; null: not audited.")


class SelectorReplay(Schema):
    """What another selector would have chosen at each epoch, from the learning rate that the job really had."""

    job_id: str
    selector: dict[str, Any]
    agreement: float | None = Field(description="Share of the epochs with the same choice; null: no epoch yet.")
    items: list[ReplayedEpoch]


class RunCost(Schema):
    method: str
    trainings: int
    samples: int = Field(description="Training samples, search included, evaluation not.")
    iterations: float = Field(description="Of the global batch.")
    relative_to_sweep: float = Field(description="To a whole training for each candidate.")


class SearchArea(Schema):
    epoch: int
    low: float
    high: float


class Plan(Schema):
    """What a spec amounts to, before anything starts."""

    train_samples: int
    iterations_per_epoch: int
    pretrain_iterations: int = Field(description="alpha")
    main_train_iterations: int = Field(description="beta")
    runs: list[RunCost]
    search_area: list[SearchArea] = Field(description="The learning rates within reach of each epoch's Pre-train.")


class ExperimentFacts(Schema):
    name: str = Field(examples=["alpha-sweep"])
    paper: str = Field(description="STPT, large-batch SGD or TVLARS.")
    figures: str = Field(description="Of that paper.")
    description: str
    jobs: list[str]
    scales: list[str] = Field(description="Of `scales`, those that it has.")


class ExperimentList(Schema):
    items: list[ExperimentFacts]
    scales: list[str]


class ExperimentJobs(Schema):
    experiment: str = Field(description="Shared by its jobs: GET /v1/jobs?experiment= lists them.")
    items: list[Job]


class DatasetFacts(Schema):
    name: str
    train_samples: int = Field(description="Validation split included.")
    test_samples: int
    classes: int
    channels: int
    image_size: int = Field(description="Pixels, square.")
    can_download: bool


class PresetPhase(Schema):
    preset: str
    until: float = Field(description="Share of the training after which the phase ends.", examples=[0.475])


class LrPreset(Schema):
    """Factors on the current learning rate, or, for a schedule of presets, its phases."""

    name: str
    factors: list[float] | None
    phases: list[PresetPhase] | None


class Catalog(Schema):
    models: list[str]
    datasets: list[DatasetFacts] = Field(description="Of known size; `image-folder` takes any tree of images beside.")
    lr_sets: list[LrPreset]
    tasks: list[str]
    optimizers: list[str]
    metrics: list[str]
    selectors: list[str]
    methods: list[str]
    presets: list[str]
    experiments: list[str]


class Health(Schema):
    status: str = Field(examples=["ok"])


class Ray(Schema):
    """The controller's last look at the cluster."""

    dashboard_url: str
    trouble: str | None = Field(description="Why Ray cannot be reached at present; null: it can.")
    cpus: float | None = Field(description="null: Ray has not answered yet.")
    gpus: float | None


class Readiness(Schema):
    status: str = Field(examples=["ready"])
    ray: Ray
