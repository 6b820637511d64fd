"""Answers with learning rates, epoch by epoch: of one job, and of all jobs."""

from pydantic import Field

from service.wire.answers.base import JOB_ID, Answer, example

# Examples: the third epoch of a job.
_LR_STEP = {
    "label": "stpt",
    "method": "stpt",
    "trial": 1,
    "epoch": 3,
    "attempt": 1,
    "phase": "stpt",
    "learning_rate": 0.085,
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
_STEP = {
    "job_id": JOB_ID,
    "model": "lenet5",
    "dataset": "digits",
    "optimizer": "sgd",
    "global_batch_size": 64,
    "label": "stpt",
    "method": "stpt",
    "trial": 1,
    "seed": 0,
    "epoch": 3,
    "phase": "stpt",
    "learning_rate": 0.085,
    "first_learning_rate": 0.068,
    "last_learning_rate": 0.0596,
    "val_accuracy": 0.9236,
    "test_accuracy": 0.925,
    "samples": 2176,
}


class LrStep(Answer):
    """The learning rate of one epoch, what it was chosen from, and what it led to."""

    model_config = example(_LR_STEP)

    label: str = Field(description="Label of its run.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Number of its trial in the run, from 1.")
    epoch: int = Field(description="Number of the epoch, from 1.")
    attempt: int = Field(
        description="Number of the attempt that recorded it; an older one's epoch stands until a newer replaces it."
    )
    phase: str = Field(description="Phase of the training: warmup, stpt (it has branches) or scheduled.")
    learning_rate: float = Field(description="The epoch's learning rate before lr_schedule.")
    first_learning_rate: float = Field(description="Learning rate of the first iteration, under lr_schedule.")
    last_learning_rate: float = Field(description="Learning rate of the last iteration, under lr_schedule.")
    candidates: list[float] = Field(description="The learning rates tried, in order, those of retries included.")
    val_accuracy: float = Field(description="Validation accuracy at the end of the epoch, from 0 to 1.")
    val_loss: float | None = Field(description="Validation loss; null: it was not finite.")
    test_accuracy: float = Field(description="Test accuracy at the end of the epoch, from 0 to 1.")
    samples: int = Field(description="Training samples processed in this epoch, all branches included.")
    samples_so_far: int = Field(description="Training samples of this and all earlier epochs of the trial.")
    seconds: float = Field(description="Duration of the whole epoch in seconds.")


class LrHistory(Answer):
    """The learning rate of every recorded epoch of a job."""

    model_config = example({"job_id": JOB_ID, "items": [_LR_STEP]})

    job_id: str = Field(description="Id of the job.")
    items: list[LrStep] = Field(description="The epochs, ordered by run, trial and epoch.")


class HistoryStep(Answer):
    """The learning rate of one epoch of one trial of one job. Optimizer and batch are the trial's own, where a search
    chose them."""

    model_config = example(_STEP)

    job_id: str = Field(description="Id of the job.")
    model: str = Field(description="Name of the model.")
    dataset: str = Field(description="Name of the dataset.")
    optimizer: str = Field(description="Name of the optimizer.")
    global_batch_size: int = Field(description="Samples of an iteration, over all workers.")
    label: str = Field(description="Label of its run.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Number of its trial in the run, from 1.")
    seed: int = Field(description="Seed of its random numbers.")
    epoch: int = Field(description="Number of the epoch, from 1.")
    phase: str = Field(description="Phase of the training: warmup, stpt or scheduled.")
    learning_rate: float = Field(description="The epoch's learning rate before lr_schedule.")
    first_learning_rate: float = Field(description="Learning rate of the first iteration, under lr_schedule.")
    last_learning_rate: float = Field(description="Learning rate of the last iteration, under lr_schedule.")
    val_accuracy: float = Field(description="Validation accuracy at the end of the epoch, from 0 to 1.")
    test_accuracy: float = Field(description="Test accuracy at the end of the epoch, from 0 to 1.")
    samples: int = Field(description="Training samples of the epoch, all branches included.")


class HistoryPage(Answer):
    """A page of the epochs of many jobs: newest jobs first, inside a job by run, trial and epoch."""

    model_config = example({"items": [_STEP], "next_cursor": None})

    items: list[HistoryStep] = Field(description="The epochs of this page.")
    next_cursor: str | None = Field(description="Goes into `cursor` for the next page; null: this is the last one.")
