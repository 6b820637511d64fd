"""Clients in the hands of a test."""

import asyncio
from collections.abc import Iterator
from typing import Protocol, cast

import pytest

from forerun.client import DEFAULT_URL, AsyncClient, Client
from forerun.connection import AsyncConnection, BlockingConnection
from tests.unit.forerun.on_a_loop import OnALoop
from tests.unit.forerun.service_double import Script


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were taken, in seconds; nobody waits."""
    taken: list[float] = []

    async def pause(_: object, seconds: float) -> None:
        taken.append(seconds)

    for connection in (AsyncConnection, BlockingConnection):
        monkeypatch.setattr(connection, "pause", pause)
    return taken


class Connect(Protocol):
    def __call__(self, script: Script, base_url: str = ...) -> Client: ...


@pytest.fixture(params=["Client", "AsyncClient"])
def connect(request: pytest.FixtureRequest, pauses: list[float]) -> Iterator[Connect]:
    """Makes a client that talks to a script: each test is run with a `Client` and with an `AsyncClient`."""
    if request.param == "Client":
        yield lambda script, base_url=DEFAULT_URL: Client(base_url, transport=script)
    else:
        with asyncio.Runner() as runner:
            yield lambda script, base_url=DEFAULT_URL: cast(
                Client, OnALoop(runner, AsyncClient(base_url, transport=script))
            )
