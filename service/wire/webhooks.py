"""What webhooks may be told of: the types of events, and what a message looks like."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

EventType = Literal[
    "job.queued",
    "job.submitting",
    "job.running",
    "job.pausing",
    "job.paused",
    "job.recovering",
    "job.cancelling",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "epoch",
    "trial",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)


def event_type(kind: str, data: Mapping[str, Any]) -> str:
    """The type of an event: `job.` and the state that the job came into, or its kind."""
    return f"job.{data['state']}" if kind == "state" else kind
