"""What happens to a job, as it happens: server-sent events."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from api.deps import MAX_INT, JobId, ServicesOf
from api.problems import documented
from service.store.engine import Store
from service.store.events import events_after
from service.store.jobs import get_job
from service.store.records import Event
from service.wire.states import TERMINAL

POLL_SECONDS = 0.3

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["events"])

_EXAMPLE = (
    'id: 1\r\nevent: state\r\ndata: {"number": 1, "kind": "state", "created_at": "2025-01-01T00:00:00Z", '
    '"state": "queued"}\r\n\r\n'
)
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events, from the first one asked for until the job ends.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    },
    204: {"description": "The job has ended, and every event was seen: nothing will ever come."},
}


@router.get(
    "/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses={**_STREAM, **documented(404, 422)},
)
def events(
    services: ServicesOf,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=MAX_INT, description="Begin after this event.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=MAX_INT, description="The same, as browsers send it; goes before `after`.")
    ] = None,
) -> Response:
    """Events are numbered from 1 without gaps; `id` is the number. `event` is `state` (the job moved to another
    state) or `epoch` (an epoch was recorded, in full). The stream ends after the event of a terminal state."""
    number = after if last_event_id is None else last_event_id
    batch, ended = _read(services.store, job_id, number)
    if ended and not batch:
        return Response(status_code=204)  # tells a browser's EventSource not to connect again
    return EventSourceResponse(_follow(services.store, job_id, number))


async def _follow(db: Store, job_id: str, number: int) -> AsyncIterator[ServerSentEvent]:
    while True:
        batch, ended = await anyio.to_thread.run_sync(_read, db, job_id, number)
        for event in batch:
            number = event.number
            yield _sent(event)
        if not batch:
            if ended:
                return
            await anyio.sleep(POLL_SECONDS)


def _read(db: Store, job_id: str, number: int) -> tuple[Sequence[Event], bool]:
    """Events after `number`, and whether the job has ended. The state is read first: once it is terminal, the
    events read after it are all there will ever be."""
    with db.read() as session:
        ended = get_job(session, job_id).state in TERMINAL
        return events_after(session, job_id, number), ended


def _sent(event: Event) -> ServerSentEvent:
    created_at = event.created_at.isoformat().replace("+00:00", "Z")
    data = {"number": event.number, "kind": event.kind, "created_at": created_at, **event.data}
    return ServerSentEvent(json.dumps(data), event=event.kind, id=str(event.number))
