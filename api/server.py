"""The HTTP server, which tells when it accepts requests and ends streams that would outlive it."""

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """A uvicorn server of `app` that calls `ready` once it accepts requests.

    A stop waits for every answer that is under way. A stream of events ends with its job, which may take days; so
    streams are told of the stop by `app.state.stopping`.
    """

    def __init__(self, app: FastAPI, log_level: str, ready: Callable[[], object]) -> None:
        super().__init__(uvicorn.Config(app, log_level=log_level, access_log=False))
        self._state, self._ready = app.state, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.stopping = False
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.stopping = True
        await super().shutdown(sockets)
