"""Answers with a job's learning rates as a schedule, and with what another selector would have made of them."""

from typing import Any

from pydantic import Field

from service.spec.methods.base import Schedule
from service.wire.answers.base import Answer


class JobSchedule(Schedule):
    """The learning rates of a trial as a schedule, which `forerun.schedules.Replay` and the method `replay` train
    by."""

    job_id: str = Field(description="Id of the job.")
    label: str = Field(description="Label of the run whose schedule it is.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Number of the trial in its run, from 1.")
    iterations_per_epoch: int = Field(description="Iterations of an epoch of that training.")


class ReplayedEpoch(Answer):
    """What another selector would have chosen at one epoch of a trial, beside what was chosen."""

    trial: int = Field(description="Number of the trial in its run, from 1.")
    epoch: int = Field(description="Number of the epoch, from 1.")
    recorded_learning_rate: float = Field(description="Learning rate of the epoch.")
    learning_rate: float | None = Field(
        description="Learning rate that the other selector would have chosen: the epoch's where it is the same branch; "
        "null: all diverged."
    )
    regret: float | None = Field(description="How much better the best audited branch ended; null: not audited.")


class SelectorReplay(Answer):
    """What another selector would have chosen at each epoch, from the learning rate that its trial really had."""

    job_id: str = Field(description="Id of the job.")
    selector: dict[str, Any] = Field(description="The other selector, with its options.")
    agreement: float | None = Field(description="Share of the epochs with the same choice; null: no epoch yet.")
    items: list[ReplayedEpoch] = Field(description="The epochs of the run that had a Pre-train, by trial and epoch.")
