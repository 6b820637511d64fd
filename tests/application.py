"""The application under test."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Thread
from typing import cast

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.deps import Services
from api.server import listening_socket


def app_over(services: Services) -> FastAPI:
    """The one application of all tests, over these services from now on. FastAPI makes the routes of a new application
    at its first request: for each test anew, that took half the time of the API's tests."""
    app = _app()
    app.state.services = services
    return app


@cache
def _app() -> FastAPI:
    return create_app(cast(Services, None))


@contextmanager
def serving(services: Services, port: int = 0) -> Iterator[int]:
    """Run a server in a thread, and enter with its port. It listens before it is started, so there is nothing to wait
    for; it ends at once, and streams that somebody still reads are cut."""
    with listening_socket("127.0.0.1", port) as listener:
        config = uvicorn.Config(app_over(services), log_level="critical", timeout_graceful_shutdown=0)
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
