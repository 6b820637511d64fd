"""Answers about recorded epochs, and the branches of their Pre-trains."""

from datetime import datetime

from pydantic import Field

from service.wire.answers.base import JOB_ID, Answer, example
from service.wire.worker import AuditRecord

# Examples: the third epoch of a job, and a branch of it.
_OF_THE_EPOCH = {"label": "stpt", "method": "stpt", "trial": 1, "epoch": 3}
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


class EpochValues(Answer):
    """The values of one epoch of one trial. Durations are in seconds; `samples` and `iterations` count all branches and
    retries."""

    label: str = Field(description="Label of its run.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Number of its trial in the run, from 1.")
    epoch: int = Field(description="Number of the epoch, from 1.")
    attempt: int = Field(description="Number of the attempt that recorded it.")
    phase: str = Field(description="Phase of the training: warmup, stpt (it has branches) or scheduled.")
    learning_rate: float = Field(description="The epoch's learning rate before lr_schedule.")
    first_learning_rate: float = Field(description="Learning rate of the first iteration, under lr_schedule.")
    last_learning_rate: float = Field(description="Learning rate of the last iteration, under lr_schedule.")
    train_loss: float | None = Field(description="Training loss; null: it was not finite.")
    val_loss: float | None = Field(description="Validation loss; null: it was not finite.")
    val_accuracy: float = Field(description="Validation accuracy at the end of the epoch, from 0 to 1.")
    test_accuracy: float = Field(description="Test accuracy at the end of the epoch, from 0 to 1.")
    retries: int = Field(description="Pre-trains that were repeated with smaller learning rates.")
    rollbacks: int = Field(description="Main-trains that were undone.")
    iterations: int = Field(description="Training iterations, all branches and retries included.")
    samples: int = Field(description="Training samples processed, all branches and retries included.")
    evaluation_samples: int = Field(description="Samples that evaluations took.")
    seconds: float = Field(description="Duration of the whole epoch.")
    pretrain_seconds: float = Field(description="Duration of its Pre-train.")
    main_train_seconds: float = Field(description="Duration of its Main-train.")
    audit: AuditRecord | None = Field(description="What the epoch's losers would have come to, where it was audited.")
    source_trial: int | None = Field(description="Trial whose checkpoint the epoch went on from; null: in one process.")
    source_epoch: int | None = Field(description="Epoch of that checkpoint.")


class Epoch(EpochValues):
    """One recorded epoch of one trial. Durations are in seconds; `samples` and `iterations` count all branches and
    retries."""

    model_config = example(_EPOCH)

    recorded_at: datetime = Field(description="When the service recorded it.")


class Branch(Answer):
    """One branch, which is one candidate learning rate of one Pre-train."""

    model_config = example(_BRANCH)

    number: int = Field(description="Number of the branch from 1, over all retries of the epoch.")
    retry: int = Field(description="The Pre-train that it belongs to: 0, or the number of the retry.")
    learning_rate: float = Field(description="Learning rate that the branch was trained with.")
    metric: float | None = Field(description="What the branch was judged by; null: not finite.")
    end_metric: float | None = Field(description="Audited: validation metric at the end of the epoch.")
    state: str = Field(description="What became of the branch: chosen, lost, eliminated, diverged or rolled_back.")
    iterations: int = Field(description="Its training iterations.")
    samples: int = Field(description="Its training samples.")
    seconds: float = Field(description="Duration of the branch in seconds.")


class EpochWithBranches(Epoch):
    """A recorded epoch, and the branches of its Pre-train."""

    model_config = example({**_EPOCH, "branches": [_BRANCH]})

    branches: list[Branch] = Field(description="The branches of its Pre-train, in the order tried.")


class BranchOfEpoch(Branch):
    """A branch of a Pre-train, and the epoch that it belongs to."""

    model_config = example({**_BRANCH, **_OF_THE_EPOCH})

    label: str = Field(description="Label of its run.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Number of its trial in the run, from 1.")
    epoch: int = Field(description="Number of the epoch, from 1.")


class EpochList(Answer):
    """The recorded epochs of a job, ordered by run, trial and epoch."""

    model_config = example({"job_id": JOB_ID, "items": [_EPOCH]})

    job_id: str = Field(description="Id of the job.")
    items: list[Epoch] = Field(description="The epochs, ordered by run, trial and epoch.")


class BranchList(Answer):
    """The branches of a job's Pre-trains, ordered by run, trial, epoch and number."""

    model_config = example({"job_id": JOB_ID, "items": [{**_BRANCH, **_OF_THE_EPOCH}]})

    job_id: str = Field(description="Id of the job.")
    items: list[BranchOfEpoch] = Field(description="The branches, ordered by run, trial, epoch and number.")
