"""`Client` and `AsyncClient` are one thing."""

import asyncio
import inspect

import pytest

from forerun.blocking import run
from forerun.client import AsyncClient, Client
from forerun.jobs import AsyncJobHandle, JobHandle
from tests.unit.forerun.conftest import Connect
from tests.unit.forerun.service_double import Script, answer, job, sent, state_event, stream

QUEUED, RUNNING = state_event(1, "queued"), state_event(2, "running", attempt=1)


@pytest.mark.parametrize(("plain", "asynchronous"), [(Client, AsyncClient), (JobHandle, AsyncJobHandle)])
def test_both_clients_have_the_same_methods(plain: type, asynchronous: type) -> None:
    def signatures(of: type) -> dict[str, list[inspect.Parameter]]:
        public = {name: getattr(of, name) for name in dir(of) if not name.startswith("_")}
        return {name: list(inspect.signature(m).parameters.values()) for name, m in public.items() if callable(m)}

    assert signatures(plain) == signatures(asynchronous)
    assert len(signatures(plain)) == {Client: 31, JobHandle: 14}[plain]
    assert plain.wait.__doc__ == asynchronous.wait.__doc__


def test_a_stream_that_nobody_reads_on_is_closed(connect: Connect) -> None:
    source = stream(sent(QUEUED), sent(RUNNING))
    events = connect(Script(answer(job()), source)).events("job-1")
    next(events)
    events.close()
    assert source.is_closed


def test_a_coroutine_that_waits_needs_a_loop() -> None:
    with pytest.raises(AssertionError, match="no event loop"):
        run(asyncio.sleep(0))
