"""The HTTP server: it says when it accepts requests, and it ends what would outlive it."""

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """Serves `app`, and calls `ready` when it accepts requests.

    A stop waits for every answer that is under way. A stream of events ends with its job, which may take days; so those
    are told by `app.state.stopping`.
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
