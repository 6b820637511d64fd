"""The terms of a job in requests: its priority and its time limit."""

from typing import Annotated

from pydantic import Field

from api.deps import MAX_INT
from service.jobs.terms import HIGHEST_PRIORITY, LOWEST_PRIORITY
from service.spec.types import Frozen

Priority = Annotated[
    int,
    Field(
        ge=LOWEST_PRIORITY,
        le=HIGHEST_PRIORITY,
        description="Of the jobs that wait those with the highest priority are submitted first, of these the oldest.",
    ),
]
TimeLimit = Annotated[
    Annotated[int, Field(ge=1, le=MAX_INT)] | None,
    Field(
        description="Seconds that the job's attempts may take together; then it fails with the code `time_limit`. "
        "What it waits or is paused is not counted. null: no limit."
    ),
]


class TermsChange(Frozen):
    """The terms of a job that are to change; those that are left out stay as they are."""

    priority: Priority = 0
    time_limit: TimeLimit = None
