"""Sends HTTP requests in a closed loop over kept connections, and times them: each connection waits for its answer
before it asks again. It does less for a request than any HTTP library, so that what it measures is the server."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import cast

HEADERS_END = b"\r\n\r\n"


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """A request as it travels."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + HEADERS_END + body


def timed(port: int, requests: Iterator[bytes], clients: int) -> list[float]:
    """Send all the requests to a port of this machine over as many connections as there are clients; the time that each
    took, in seconds. Raises RuntimeError where an answer is no success."""
    return asyncio.run(_timed(port, requests, clients))


async def _timed(port: int, requests: Iterator[bytes], clients: int) -> list[float]:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    done = [loop.create_future() for _ in range(clients)]
    for end in done:
        await loop.create_connection(lambda end=end: _Connection(requests, times.append, end), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*done)
    return times


class _Connection(asyncio.Protocol):
    """One connection, which asks as long as there are requests."""

    def __init__(self, requests: Iterator[bytes], took: Callable[[float], object], end: asyncio.Future[None]) -> None:
        self._requests, self._took, self._end = requests, took, end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        asked = next(self._requests, None)
        if asked is None:
            self._transport.close()
            self._end.set_result(None)
            return
        self._head, self._missing = b"", -1
        self._began = time.perf_counter()
        self._transport.write(asked)

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            head, end, rest = self._head.partition(HEADERS_END)
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 20"):
                self._fail(f"the server answered {self._head[:500]!r}")
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._missing, data = int(length), rest
        self._missing -= len(data)
        if self._missing == 0:
            self._took(time.perf_counter() - self._began)
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._end.done():
            self._fail(f"the server closed the connection: {error}")

    def _fail(self, why: str) -> None:
        if not self._end.done():
            self._end.set_exception(RuntimeError(why))
        self._transport.close()
