"""The route to the events of a job, which are sent as they happen (server-sent events)."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.deps import MAX_INT, JobId, is_known, stream_slot
from api.event_hub import EventHub, Stream
from api.problems import documented

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


async def _stream(
    request: Request,
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
) -> AsyncIterator[Stream]:
    """The stream of the job's events, which lasts as long as the answer. Raises NotFound where there is no such job,
    and TooManyStreams; once the stream has begun it would be too late."""
    hub: EventHub = request.app.state.events
    async with hub.following(job_id, after if last_event_id is None else last_event_id) as stream:
        if stream.is_over:
            response.status_code = 204  # tells a browser's EventSource not to connect again
        yield stream


@router.get(
    "/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    dependencies=[Depends(stream_slot)],
    responses={**_STREAM, **documented(404, 422, 503)},
)
async def events(request: Request, stream: Annotated[Stream, Depends(_stream)]) -> AsyncIterator[ServerSentEvent]:
    """Streams what happens to the job. Events are numbered from 1 without gaps; `id` is the number. `event` is `state`
    (the job moved to another state), `epoch` (an epoch was recorded, in full) or `trial` (a trial of a search began,
    changed or ended early). A comment comes when nothing else has for 15 s. The stream ends after the event of a
    terminal state, and with the API key that it came by. Where as many streams are open as there may be, the answer is
    503: try again later."""
    async for event in stream.events():
        if not await is_known(request):
            return  # its key was revoked, or has expired
        yield event
