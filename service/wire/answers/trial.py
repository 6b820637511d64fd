"""Answers about the trials of a job, which are its trainings."""

from typing import Any

from pydantic import Field

from service.wire.answers.base import JOB_ID, Answer, example

# An example: a trial of a search on the digits.
_TRIAL = {
    "label": "asha",
    "method": "asha",
    "trial": 2,
    "seed": 0,
    "config": {"learning_rate": 0.21},
    "state": "stopped",
    "message": "stopped at a rung",
    "epochs": 3,
    "length": 10,
    "samples": 3840,
    "lost_samples": 0,
    "val_accuracy": 0.9097,
    "test_accuracy": 0.9,
    "best_epoch": 3,
    "learning_rate": 0.21,
    "last_learning_rate": 0.147,
}


class TrialResult(Answer):
    """One trial, which is one training of a method. `val_accuracy` is its best; `test_accuracy` is that of the same
    epoch."""

    model_config = example(_TRIAL)

    label: str = Field(description="Label of its run.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Number of the trial in its run, from 1.")
    seed: int = Field(description="Seed of its random numbers.")
    config: dict[str, Any] = Field(
        description="Hyperparameters that a search has chosen; of lr-range-test the test's curve, too."
    )
    state: str = Field(description="State of the trial: pending, running, completed, stopped, diverged or failed.")
    message: str | None = Field(description="Why it ended before its last epoch.")
    epochs: int = Field(description="Number of recorded epochs.")
    length: int = Field(description="Epochs that it trains at most.")
    samples: int = Field(description="Training samples of the recorded epochs, search included.")
    lost_samples: int = Field(description="Training samples of epochs that were trained again after a lost attempt.")
    val_accuracy: float | None = Field(
        description="Best validation accuracy; null, as in all that follow: no epoch is recorded yet."
    )
    test_accuracy: float | None = Field(description="Test accuracy of the epoch with that validation accuracy.")
    best_epoch: int | None = Field(description="The epoch with the best validation accuracy; of equals the first.")
    learning_rate: float | None = Field(description="Learning rate of the last epoch, before lr_schedule.")
    last_learning_rate: float | None = Field(description="Learning rate of its last iteration, under lr_schedule.")


class TrialList(Answer):
    """The trials of a job, by run, in the order of the spec, and number."""

    model_config = example({"job_id": JOB_ID, "items": [_TRIAL]})

    job_id: str = Field(description="Id of the job.")
    items: list[TrialResult] = Field(description="The trials, by run, in the order of the spec, and number.")
