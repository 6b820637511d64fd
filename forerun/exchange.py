"""How the client asks the service: requests that are sent again, answers as models, pages, and streams that are taken
up again."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import httpx
from httpx_sse import SSEError
from pydantic import BaseModel, ValidationError

from forerun.connection import Connection
from forerun.errors import ApiError, ServiceUnreachable
from forerun.program import program
from forerun.rows import Row, Rows
from service.wire.answers import Event, StateEvent, parse_event
from service.wire.states import TERMINAL

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0)  # seconds before each retry: a restart of the service takes 20
RETRIES = 2  # of a single request; the stream of events takes all of PAUSES
LONGEST_WAIT_S = 10.0  # that the client waits where the service asks it to ask again later
SILENCE_S = 60.0  # without a byte, a stream of events is dead: the service sends something every 15 s
A = TypeVar("A", bound=BaseModel)


class Exchange:
    """Requests and answers over a connection to the service at `base_url`; `timeout` is in seconds, for one try.

    Every method raises `ApiError` when the service refuses and `ServiceUnreachable` when it does not answer. A request
    whose answer was lost, or that the service's database could not take at present, is sent again, at growing
    intervals: every call of the API may be repeated.
    """

    def __init__(self, connection: Connection, base_url: str, timeout: float) -> None:
        self.connection, self._base_url, self._timeout = connection, base_url, timeout

    async def answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request, again where its answer is lost, and return the answer, which is a success."""
        for pause in (*PAUSES[:RETRIES], None):
            try:
                response = await self.connection.request(method, path, **request)
            except httpx.RequestError as error:
                await self.pause_or_raise(error, pause)
                continue
            wait = None if pause is None else _seconds_to_wait(response, pause)
            if wait is None:
                break
            await self.connection.pause(wait)
        if not response.is_success:
            raise ApiError.of(response)
        return response

    async def pause_or_raise(self, error: httpx.RequestError, pause: float | None) -> None:
        """Wait for `pause` seconds before a failed request is sent again; where that is None it is not, and
        ServiceUnreachable is raised."""
        # Nobody listens: no use in asking again. Anything else may have cost us the answer alone.
        if pause is None or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise self.unreachable(error) from error
        await self.connection.pause(pause)

    async def one(self, model: type[A], method: str, path: str, **request: Any) -> A:
        """The answer as a model; fields that only a newer service knows are left out."""
        response = await self.answer(method, path, **request)
        return _read(model, response, _document(response))

    async def rows(self, model: type[Row], path: str, params: Mapping[str, Any] | None = None) -> Rows[Row]:
        """The items of an answer that is a list, all on one page."""
        response = await self.answer("GET", path, params=params)
        return Rows(_items(model, response, _document(response)))

    async def pages(self, model: type[Row], path: str, params: Mapping[str, Any]) -> AsyncGenerator[Row, None]:
        """Yield the items of all pages of a list; a page is fetched when it is needed."""
        while True:
            response = await self.answer("GET", path, params=params)
            page = _document(response)
            for item in _items(model, response, page):
                yield item
            if page.get("next_cursor") is None:
                return
            params = {**params, "cursor": page["next_cursor"]}

    async def events(self, path: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield the events behind number `after`, to that of the job's terminal state. A stream that breaks is taken up
        again behind the last event; raises when the service has not come back after all of PAUSES."""
        last, lost = after, 0
        while True:
            try:
                async with aclosing(self._stream(path, last)) as stream:
                    async for event in stream:
                        last, lost = event.number, 0
                        yield event
                return
            except (ServiceUnreachable, ApiError) as error:
                if error.status < 500 or lost == len(PAUSES):
                    raise
            await self.connection.pause(PAUSES[lost])
            lost += 1

    async def _stream(self, path: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield the events of one connection. Returns after the last event that the job will ever have, else raises."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Last-Event-ID": str(after)}
        timeout = httpx.Timeout(self._timeout, read=SILENCE_S)
        try:
            async with self.connection.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code == 204:
                    return  # the job has ended, and `after` was its last event
                await self.raise_unless_success(response)
                async with aclosing(self.connection.sent_events(response)) as sent_events:
                    async for sent in sent_events:
                        if not sent.data:
                            continue  # a sign of life
                        event = parse_event(sent.data)
                        yield event
                        if isinstance(event, StateEvent) and event.state in TERMINAL:
                            return
        except (SSEError, ValidationError, json.JSONDecodeError):
            raise ApiError.unexpected(response, "with something other than events") from None
        except httpx.TransportError as error:
            raise self.unreachable(error) from error
        raise self.unreachable("it ended the stream of events")

    async def raise_unless_success(self, response: httpx.Response) -> None:
        """Raise the ApiError that an answer tells, unless it is a success. Its body must not have been read."""
        if not response.is_success:
            await self.connection.read(response)
            raise ApiError.of(response)

    def unreachable(self, why: object) -> ServiceUnreachable:
        """The error that says that the service cannot be reached, why, and how to start it."""
        return ServiceUnreachable(
            f"no answer from {self._base_url} ({str(why) or type(why).__name__}); start the service with "
            f"`{program()} serve`, or, if it runs elsewhere, give its URL with --url or FORERUN_URL"
        )


def _seconds_to_wait(response: httpx.Response, least: float) -> float | None:
    """After how many seconds a request may be sent again that came too often, or, after `least` of them, one that the
    database had no answer to; None where it is neither, or takes too long."""
    told = response.headers.get("Retry-After", "")
    wait = float(told) if told.isdecimal() else None
    if response.status_code == 429:
        return None if wait is None or wait > LONGEST_WAIT_S else wait
    if response.status_code == 503 and ApiError.of(response).code == "database_unavailable":
        return max(least, min(wait or 0.0, LONGEST_WAIT_S))
    return None


def _items(model: type[Row], response: httpx.Response, document: Any) -> list[Row]:
    try:
        return [_read(model, response, item) for item in document["items"]]
    except (LookupError, TypeError):
        raise ApiError.unexpected(response, "with something other than a list") from None


def _read(model: type[A], response: httpx.Response, document: Any) -> A:
    try:
        return model.model_validate(document, extra="ignore")
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or model.__name__ for e in error.errors())
        raise ApiError.unexpected(response, f"with a {model.__name__} that is not one ({fields})") from None


def _document(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ApiError.unexpected(response, "with something other than JSON") from None
