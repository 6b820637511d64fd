"""The route to the events of a job, which are sent as they happen (server-sent events)."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api import translate
from api.deps import MAX_INT, JobId, ServicesOf, is_known, stream_slot
from api.problems import documented
from service.store.engine import Store
from service.store.events import events_after
from service.store.jobs import get_job
from service.wire.answers import KnownEvent
from service.wire.states import TERMINAL

POLL_SECONDS = 0.3

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["events"])

_EXAMPLE = (
    'event: state\ndata: {"number":1,"kind":"state","created_at":"2025-01-01T00:00:00Z","state":"queued",'
    '"attempt":null,"code":null,"message":null}\nid: 1\n\n'
)
# FastAPI describes an event of the stream; what its `data` holds, the route's type has no place for.
_DATA = {"contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/Event"}}
_ITEM = {"required": ["data", "event", "id"], "properties": {"data": _DATA}}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events, from the first one asked for until the job ends.",
        "content": {"text/event-stream": {"itemSchema": _ITEM, "example": _EXAMPLE}},
    },
    204: {"description": "The job has ended, and every event was seen: nothing will ever come."},
}


def _begin(
    services: ServicesOf,
    job_id: JobId,
    response: Response,
    after: Annotated[
        int, Query(ge=0, le=MAX_INT, description="Number of the event to begin after; 0: from the first.")
    ] = 0,
    last_event_id: Annotated[
        int | None,
        Header(
            ge=0,
            le=MAX_INT,
            description="Number of the event to begin after, as browsers send it; goes before `after`.",
        ),
    ] = None,
) -> int:
    """The number of the event to begin after. Raises NotFound where there is no such job; once the stream has begun it
    would be too late."""
    number = after if last_event_id is None else last_event_id
    batch, ended = _read(services.store, job_id, number)
    if ended and not batch:
        response.status_code = 204  # tells a browser's EventSource not to connect again
    return number


@router.get(
    "/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    dependencies=[Depends(stream_slot)],
    responses={**_STREAM, **documented(404, 422)},
)
async def events(
    request: Request, services: ServicesOf, job_id: JobId, number: Annotated[int, Depends(_begin)]
) -> AsyncIterator[ServerSentEvent]:
    """Streams what happens to the job. Events are numbered from 1 without gaps; `id` is the number. `event` is `state`
    (the job moved to another state), `epoch` (an epoch was recorded, in full) or `trial` (a trial of a search began,
    changed or ended early). The stream ends after the event of a terminal state, and with the API key that it came
    by."""
    while not request.app.state.stopping:
        batch, ended = await anyio.to_thread.run_sync(_read, services.store, job_id, number)
        for event in batch:
            if not await is_known(request):
                return  # its key was revoked, or has expired
            number = event.number
            yield ServerSentEvent(data=event, event=event.kind, id=str(number))
        if not batch:
            if ended:
                return
            await anyio.sleep(POLL_SECONDS)


def _read(db: Store, job_id: str, number: int) -> tuple[Sequence[KnownEvent], bool]:
    """The events after `number`, and whether the job has ended. The state is read first: once it is terminal, the
    events read after it are all there will ever be."""
    with db.read() as session:
        ended = get_job(session, job_id).state in TERMINAL
        found = events_after(session, job_id, number)
    return [translate.event(one) for one in found], ended
