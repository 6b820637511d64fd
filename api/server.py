"""The HTTP server, which tells when it accepts requests and ends streams that would outlive it."""

import gc
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from api.limits import Limits
from api.protocol import Config

BACKLOG = 512  # connections that wait to be accepted
USER_TIMEOUT_MS = 60_000  # a client that acknowledges nothing for so long is gone: its connection ends


class Server(uvicorn.Server):
    """A uvicorn server of `app` within `limits` that calls `ready` once it accepts requests.

    A stop waits for every answer that is under way. A stream of events ends with its job, which may take days; so
    streams are told of the stop by the hub that they hang on.
    """

    def __init__(self, app: FastAPI, log_level: str, ready: Callable[[], object], limits: Limits | None = None) -> None:
        super().__init__(Config(app, limits or Limits(), log_level))
        self._state, self._ready = app.state, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.events.end()
        await super().shutdown(sockets)


def listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens at an IPv4 or IPv6 address. Raises OSError where it cannot.

    It knows that it speaks TCP, which one of `socket.create_server` does not: without that asyncio leaves Nagle's
    algorithm on, and an answer may wait 40 ms for the client's acknowledgement of its first part.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, port), family=family, backlog=BACKLOG)
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; what is accepted has it from here
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    return listener


def collect_less_garbage() -> None:
    """Have Python's collector of cyclic garbage pass over what is there by now, which stays until the process ends, and
    look for new garbage less often. A page makes tens of thousands of objects and no cycle: a look at all of them, and
    now and then at all modules, came in the middle of every few answers."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
