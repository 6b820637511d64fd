"""How the client reaches the service: one promise made of coroutines, kept by httpx with and without asyncio.

What stands on a `Connection` (forerun/exchange.py, forerun/calls.py) is written once, as coroutines. Over
`BlockingConnection` they never suspend, so that `forerun.blocking` can run them to their end without an event loop.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import httpx
from httpx_sse import EventSource, ServerSentEvent

DEFAULT_URL = "http://127.0.0.1:8000"


class Connection(Protocol):
    """Requests to one service, as coroutines. Raises `httpx.RequestError` where no answer comes."""

    async def request(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request, and return the answer once it is read in full."""

    def stream(self, method: str, path: str, **request: Any) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a request, and enter with the answer as soon as its head is there; its body is then read by one of
        `read`, `chunks` and `sent_events`."""

    async def read(self, response: httpx.Response) -> None:
        """Read the body of an answer in full."""

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Yield the body of an answer piece by piece."""

    def sent_events(self, response: httpx.Response) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield the body of an answer as server-sent events. Raises httpx_sse.SSEError where it is something else."""

    async def pause(self, seconds: float) -> None:
        """Wait for so many seconds."""

    async def close(self) -> None:
        """Close the connection; no request may follow."""


class AsyncConnection:
    """A `Connection` by httpx on the event loop that runs."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def request(self, method: str, path: str, **request: Any) -> httpx.Response:
        return await self._http.request(method, path, **request)

    def stream(self, method: str, path: str, **request: Any) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(method, path, **request)

    async def read(self, response: httpx.Response) -> None:
        await response.aread()

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        return response.aiter_bytes()

    def sent_events(self, response: httpx.Response) -> AsyncGenerator[ServerSentEvent, None]:
        return EventSource(response).aiter_sse()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self._http.aclose()


class BlockingConnection:
    """A `Connection` by httpx in the thread that calls: none of its coroutines ever suspends."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    async def request(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self._http.request(method, path, **request)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        with self._http.stream(method, path, **request) as response:
            yield response

    async def read(self, response: httpx.Response) -> None:
        response.read()

    async def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        for chunk in response.iter_bytes():
            yield chunk

    async def sent_events(self, response: httpx.Response) -> AsyncGenerator[ServerSentEvent, None]:
        for sent in EventSource(response).iter_sse():
            yield sent

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    async def close(self) -> None:
        self._http.close()


def headers_of(api_key: str | None) -> dict[str, str]:
    """The headers by which a client says who it is: by `api_key`, or where that is None by the environment variable
    FORERUN_API_KEY; an empty one is none. Raises ValueError for what cannot be a key, without repeating it."""
    key = os.environ.get("FORERUN_API_KEY", "") if api_key is None else api_key
    if not key:
        return {}
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("this cannot be an API key: it has a space, a line break or a special character in it")
    return {"Authorization": f"Bearer {key}"}


def checked_url(base_url: str) -> httpx.URL:
    """The URL of a service. Raises ValueError when it is not an http URL."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{base_url!r} is not the URL of a service; write it like {DEFAULT_URL}")
    return url
