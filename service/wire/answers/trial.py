"""The trainings of a job."""

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
    """One training of a method. `val_accuracy` is its best; `test_accuracy` is that of the same epoch."""

    model_config = example(_TRIAL)

    label: str = Field(description="Label of its run.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Its number in the run, from 1.")
    seed: int = Field(description="Of its random numbers.")
    config: dict[str, Any] = Field(
        description="Hyperparameters that a search has chosen; of lr-range-test the test's curve, too."
    )
    state: str = Field(description="pending, running, completed, stopped, diverged or failed")
    message: str | None = Field(description="Why it ended before its last epoch.")
    epochs: int = Field(description="Recorded.")
    length: int = Field(description="Epochs that it trains at most.")
    samples: int = Field(description="Training samples of the recorded epochs, search included.")
    lost_samples: int = Field(description="Of epochs that a lost attempt had recorded and the next one trained again.")
    val_accuracy: float | None = Field(description="null: no epoch is recorded yet, as in all that follow.")
    test_accuracy: float | None = Field(description="Of the epoch with that validation accuracy.")
    best_epoch: int | None = Field(description="The epoch with the best validation accuracy; of equals the first.")
    learning_rate: float | None = Field(description="Of the last epoch, before lr_schedule.")
    last_learning_rate: float | None = Field(description="Of its last iteration, under lr_schedule.")


class TrialList(Answer):
    """The trainings of a job."""

    model_config = example({"job_id": JOB_ID, "items": [_TRIAL]})

    job_id: str = Field(description="Id of the job.")
    items: list[TrialResult] = Field(description="By run, in the order of the spec, and number.")
