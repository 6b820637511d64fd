"""`Client` and `AsyncClient` are one thing."""

import asyncio
import inspect
from collections.abc import Iterator

import pytest

from forerun.blocking import run
from forerun.client import AsyncClient, Client
from forerun.jobs import AsyncJobHandle, JobHandle
from service.wire.answers import Event, Job
from tests.unit.forerun.conftest import Connect
from tests.unit.forerun.service_double import Script, answer, job, sent, state_event, stream

QUEUED, RUNNING = state_event(1, "queued"), state_event(2, "running", attempt=1)


@pytest.mark.parametrize(("plain", "asynchronous"), [(Client, AsyncClient), (JobHandle, AsyncJobHandle)])
def test_both_clients_have_the_same_methods(plain: type, asynchronous: type) -> None:
    def signatures(of: type) -> dict[str, list[inspect.Parameter]]:
        public = {name: getattr(of, name) for name in dir(of) if not name.startswith("_")}
        return {name: list(inspect.signature(m).parameters.values()) for name, m in public.items() if callable(m)}

    assert signatures(plain) == signatures(asynchronous)
    assert len(signatures(plain)) == {Client: 46, JobHandle: 19}[plain]
    assert plain.wait.__doc__ == asynchronous.wait.__doc__


def test_what_a_plain_method_gives_is_no_coroutine() -> None:
    methods = (Client.read_job, Client.jobs, Client.submit, JobHandle.follow)
    assert [inspect.signature(method).return_annotation for method in methods] == [
        Job,
        Iterator[Job],
        JobHandle,
        Iterator[Event],
    ]


def test_a_plain_client_works_where_an_event_loop_runs() -> None:
    async def in_a_notebook() -> list[str]:
        script = Script(answer(job()), stream(sent(QUEUED), sent(state_event(2, "cancelled"))))
        return [event.kind for event in Client(transport=script).events("job-1")]

    assert asyncio.run(in_a_notebook()) == ["state", "state"]


def test_a_stream_that_nobody_reads_on_is_closed(connect: Connect) -> None:
    source = stream(sent(QUEUED), sent(RUNNING))
    events = connect(Script(answer(job()), source)).events("job-1")
    next(events)
    events.close()
    assert source.is_closed


def test_a_coroutine_that_waits_needs_a_loop() -> None:
    with pytest.raises(AssertionError, match="no event loop"):
        run(asyncio.sleep(0))
