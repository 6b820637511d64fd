"""HTTP/1.1 as uvicorn speaks it, with the limits that uvicorn has not: how many connections, and how long each part of
a request may take. None of them costs a thread: what waits here are timers of the event loop.

uvicorn has a time limit for connections between two requests alone, and answers to what it refuses as plain text.
"""

import asyncio
import json
import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from api import problems
from api.headers import SECURITY_HEADERS
from api.limits import LINGER_SECONDS, MAX_HEADER_BYTES, MAX_TARGET_BYTES, Limits
from api.sizes import HEADERS_TOO_LARGE, URI_TOO_LONG


class Config(uvicorn.Config):
    """The configuration of a server within `limits`."""

    def __init__(self, app: Any, limits: Limits, log_level: str) -> None:
        super().__init__(
            app,
            http=LimitedProtocol,
            ws="none",
            log_config=None,  # it logs as everything else does
            log_level=log_level,
            access_log=False,
            server_header=False,
            # As many are accepted in each turn of the event loop; what is one too many is closed four turns later.
            backlog=max(1, min(512, limits.connections // 8)),
            timeout_keep_alive=limits.keep_alive_seconds,
            h11_max_incomplete_event_size=MAX_TARGET_BYTES + MAX_HEADER_BYTES,
        )
        self.limits = limits
        self.idle: dict[LimitedProtocol, None] = {}  # connections without a request, the longest idle one first


class LimitedProtocol(H11Protocol):
    """A connection within the limits of its configuration.

    A request whose header fields or whose body take too long is answered with 408. When there are too many connections
    the one that has been idle for longest is closed; where all are at work, the new one is answered with 503. A client
    that does not read its answer is cut off.
    """

    config: Config

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._awaited: tuple[str, object] | None = None  # a part of a request, and the request before or its own
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, or refuse it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.config.limits.connections:
            if not self.config.idle:
                detail = f"all {self.config.limits.connections} connections of this service are taken; try again later"
                self._refuse(503, "too_many_connections", "Too many connections", detail)
                return
            next(iter(self.config.idle)).shutdown()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self.config.idle.pop(self, None)
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take in what the client has sent."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Go on to the next request of the connection."""
        super().on_response_complete()
        self._look()

    def shutdown(self) -> None:
        """End the connection: at once where it is idle or its request is not whole, else with its answer."""
        self.config.idle.pop(self, None)
        if self.conn.their_state is h11.SEND_BODY and not self.cycle.response_started:
            self._refuse(503, "stopping", "Stopping", "the service is being stopped; try again later")
        else:
            super().shutdown()

    def _look(self) -> None:
        """Set the timer for what the connection waits for now, unless it is what it has waited for before."""
        self.config.idle.pop(self, None)
        part, seconds = self._part()
        if part in ("idle", "header"):
            self.config.idle[self] = None
        awaited = (part, self.cycle)
        if awaited == self._awaited:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._awaited = awaited
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_late, part)

    def _part(self) -> tuple[str, float | None]:
        """What the connection waits for, and for how many seconds it may take; None: for what is not the client's, or
        has a timer of uvicorn's."""
        limits = self.config.limits
        if self.transport.is_closing():
            return "end", None
        if self.conn.their_state is h11.SEND_BODY:
            answered = self.cycle.response_complete
            return ("rest", LINGER_SECONDS) if answered else ("body", limits.body_seconds)
        if self.cycle is not None and not self.cycle.response_complete:
            return "answer", None
        if self.cycle is not None and not self.conn.trailing_data[0]:
            return "idle", None
        return "header", limits.header_seconds

    def _too_late(self, part: str) -> None:
        limits = self.config.limits
        if part == "header" and self.conn.trailing_data[0]:
            detail = f"the header took more than {limits.header_seconds:g} s to arrive; send it at once"
            self._refuse(408, "request_timeout", "Request timeout", detail)
        elif part == "body":
            detail = f"the body took more than {limits.body_seconds:g} s to arrive; send it at once"
            self._refuse(408, "request_timeout", "Request timeout", detail)
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or too long, with a problem document. Called while h11's error is handled."""
        error = sys.exception()
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if hint != 431:
            self._refuse(400, "bad_request", "Bad request", f"this is not HTTP/1.1 ({error or msg})")
        elif b"\n" in self.conn.trailing_data[0]:
            self._refuse(431, *HEADERS_TOO_LARGE)
        else:
            self._refuse(414, *URI_TOO_LONG)

    def _refuse(self, status: int, code: str, title: str, detail: str) -> None:
        """Answer with a problem document in place of the application, which learns that the client is gone, and end
        the connection. Where the answer has begun already it is cut off."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        path = "" if self.cycle is None or self.cycle.response_complete else self.cycle.scope["path"]
        document = problems.document(status, code, title, detail, path)
        body = json.dumps(document).encode()
        headers = [
            *self.server_state.default_headers,
            *((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if status == 503:
            headers.append((b"retry-after", str(problems.RETRY_AFTER_SECONDS).encode()))
        response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        parts = (self.conn.send(part) or b"" for part in (response, h11.Data(data=body), h11.EndOfMessage()))
        self.transport.write(b"".join(parts))
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def pause_writing(self) -> None:
        """Called when the client does not read as fast as it is sent to."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.config.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Called when the client has caught up."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
