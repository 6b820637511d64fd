"""The events of a job, as the stream of them tells what happens to it."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from service.wire.answers.base import Answer
from service.wire.answers.epoch import Branch, EpochValues
from service.wire.worker import AuditRecord


class _Numbered(Answer):
    number: int = Field(description="Number of the event from 1, without gaps.")
    kind: str = Field(description="Kind of the event: state, epoch or trial.")
    created_at: datetime = Field(description="When it happened.")


class StateEvent(_Numbered):
    """The event that the job moved to another state. A failure has a code and a message."""

    kind: Literal["state"] = Field(description="Kind of the event.")
    state: str = Field(description="The state that the job is in now.")
    attempt: int | None = Field(None, description="Number of the attempt, where there is one.")
    code: str | None = Field(None, description="Code of a failure, stable: programs go by it.")
    message: str | None = Field(None, description="What failed, in a sentence.")


class TrialEvent(_Numbered):
    """The event that a trial of a search, or a training within a budget, began or changed its hyperparameters, or that
    a trial ended before its last epoch."""

    kind: Literal["trial"] = Field(description="Kind of the event.")
    label: str = Field(description="Label of its run.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Number of the trial in its run, from 1.")
    seed: int = Field(description="Seed of its random numbers.")
    config: dict[str, Any] = Field(
        description="Hyperparameters that a search has chosen; of lr-range-test the test's curve, too."
    )
    epochs: int = Field(description="Epochs that the trial trains at most.")
    state: str = Field(description="State of the trial: pending, running, completed, stopped, diverged or failed.")
    message: str | None = Field(None, description="Why it ended before its last epoch.")


class EventBranch(Branch):
    """A branch of the epoch that an event tells of."""

    retry: int = Field(0, description="The Pre-train that it belongs to: 0, or the number of the retry.")
    end_metric: float | None = Field(None, description="Audited: validation metric at the end of the epoch.")


class EpochEvent(EpochValues, _Numbered):
    """The event that an epoch was recorded. After a lost attempt the next one may report an epoch again."""

    kind: Literal["epoch"] = Field(description="Kind of the event.")
    audit: AuditRecord | None = Field(None, description="What the epoch's losers would have come to.")
    source_trial: int | None = Field(None, description="Trial whose checkpoint the epoch went on from.")
    source_epoch: int | None = Field(None, description="Epoch of that checkpoint.")
    branches: list[EventBranch] = Field(description="The branches of its Pre-train, in the order tried.")


class OtherEvent(Answer):
    """An event of a kind that only a newer service knows; it keeps all its fields."""

    model_config = ConfigDict(extra="allow")

    number: int = Field(description="Number of the event from 1, without gaps.")
    kind: str = Field(description="Kind of the event, none of those that are known here.")


KnownEvent = StateEvent | TrialEvent | EpochEvent
Event = KnownEvent | OtherEvent

KNOWN_EVENT: TypeAdapter[KnownEvent] = TypeAdapter(
    Annotated[KnownEvent, Field(discriminator="kind", description="What happened to a job.")]
)
_KINDS = frozenset({"state", "trial", "epoch"})


def parse_event(data: str | bytes) -> Event:
    """Read the event of a job in the `data` of a server-sent event. Raises ValueError for anything else."""
    document = json.loads(data)
    if isinstance(document, dict) and document.get("kind") not in _KINDS:
        return OtherEvent.model_validate(document)
    return KNOWN_EVENT.validate_python(document, extra="ignore")
