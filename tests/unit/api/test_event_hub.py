"""The hub of event streams, over a real database: what it reads, how often, and in which order it hands it out."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from threading import active_count
from typing import Any

import pytest
from fastapi.sse import ServerSentEvent
from sqlalchemy import event as sqlalchemy_event

from api import event_hub as hubs
from api.event_hub import EventHub, Stream, event_hub
from service.errors import NotFound, TooManyStreams
from service.jobs import lifecycle
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.store.engine import DatabaseError, Store
from service.store.events import append_event, events_between, heads_of
from tests.builders import spec_document

pytest_plugins = ["tests.databases"]

TRIAL = {"label": "tpe", "method": "tpe", "trial": 1, "seed": 0, "config": {}, "epochs": 3, "state": "running"}
DEADLINE = 20


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "POLL_SECONDS", 0.01)


@pytest.fixture
def statements(store: Store) -> Iterator[list[str]]:
    """The statements that the store executes, in order."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    sqlalchemy_event.listen(store._engine, "before_cursor_execute", note)
    yield seen
    sqlalchemy_event.remove(store._engine, "before_cursor_execute", note)


def submit(store: Store) -> str:
    return submit_job(store, JobSpec.model_validate(spec_document()))[0]


def append(store: Store, *job_ids: str) -> None:
    with store.write() as session:
        for job_id in job_ids:
            append_event(session, job_id, "trial", TRIAL, datetime.now(UTC))


async def first(stream: Stream, count: int) -> list[int]:
    """The numbers of the next `count` events; fewer where the stream ends before."""
    seen: list[int] = []
    async with asyncio.timeout(DEADLINE):
        async for event in stream.events():
            seen.append(number_of(event))
            if len(seen) == count:
                break
    return seen


def number_of(event: ServerSentEvent) -> int:
    assert event.id is not None
    return int(event.id)


def test_heads_and_spans(store: Store) -> None:
    a, b = submit(store), submit(store)
    append(store, a, a, b)
    with store.read() as session:
        heads = heads_of(session, [a, b, "none"])
        assert {head.id: (head.last_event, head.state) for head in heads.values()} == {
            a: (3, "queued"),
            b: (2, "queued"),
        }
        found = events_between(session, {a: (1, 3), b: (0, 1)})
        assert {job_id: [event.number for event in events] for job_id, events in found.items()} == {a: [2, 3], b: [1]}
        cut = events_between(session, {a: (0, 3), b: (0, 2)}, limit=4)
        assert {job_id: [event.number for event in events] for job_id, events in cut.items()} == {a: [1, 2, 3], b: [1]}


def test_every_stream_of_a_job_gives_each_event_once_and_in_order(store: Store) -> None:
    async def run() -> None:
        job_id, other = submit(store), submit(store)
        async with event_hub(store, 100) as hub, AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(hub.following(job_id, number)) for number in (0, 1, 3)]
            streams += [await stack.enter_async_context(hub.following(other, 0))]
            reading = [asyncio.create_task(first(stream, 1000)) for stream in streams]
            for _ in range(5):
                append(store, job_id, other)
                await asyncio.sleep(0)
            for one in (job_id, other):
                lifecycle.cancel(store, one)
            assert await asyncio.gather(*reading) == [
                [1, 2, 3, 4, 5, 6, 7],
                [2, 3, 4, 5, 6, 7],
                [4, 5, 6, 7],
                [1, 2, 3, 4, 5, 6, 7],
            ]

    asyncio.run(run())


def test_events_that_the_hub_has_not_kept_are_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "MAX_BATCH", 3)

    async def run() -> None:
        job_id = submit(store)
        append(store, *[job_id] * 9)
        async with event_hub(store, 2) as hub, hub.following(job_id, 0) as slow, hub.following(job_id, 10) as quick:
            events = slow.events()
            assert number_of(await anext(events)) == 1  # and then its client does not read for a while
            append(store, *[job_id] * 20)
            assert await first(quick, 20) == list(range(11, 31))
            lifecycle.cancel(store, job_id)
            assert [number_of(event) async for event in events] == list(range(2, 32))

    asyncio.run(run())


def test_streams_that_wait_ask_nothing_of_their_own(store: Store, statements: list[str]) -> None:
    async def run() -> None:
        job_ids = [submit(store) for _ in range(3)]
        async with event_hub(store, 500) as hub, AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(hub.following(job_ids[n % 3], 1)) for n in range(300)]
            reading = [asyncio.create_task(first(stream, 1)) for stream in streams]
            await asyncio.sleep(0)
            threads = active_count()
            statements.clear()
            for _ in range(10):
                await hub._look()
            assert active_count() <= threads + 1
            selects = [statement for statement in statements if statement.startswith("SELECT")]
            assert 10 <= len(selects) <= 20  # one for all streams, and those of the hub's own task between them
            append(store, job_ids[0])
            assert await asyncio.gather(*reading[::3]) == [[2]] * 100
            for task in reading:
                task.cancel()

    asyncio.run(run())


def test_nobody_follows_nothing_is_asked(store: Store, statements: list[str]) -> None:
    async def run() -> None:
        job_id = submit(store)
        async with event_hub(store, 1) as hub:
            async with hub.following(job_id, 0) as stream:
                assert await first(stream, 1) == [1]
            statements.clear()
            assert await hub._look() is False
            assert statements == []
            assert not hub._followed.is_set()  # its task waits

    asyncio.run(run())


def test_one_stream_too_many(sqlite_store: Store) -> None:
    async def run() -> None:
        job_id = submit(sqlite_store)
        async with event_hub(sqlite_store, 2) as hub:
            async with hub.following(job_id, 0), hub.following(job_id, 0):
                with pytest.raises(TooManyStreams, match="2 streams of events are open"):
                    await hub.following(job_id, 0).__aenter__()
            for _ in range(3):  # one that is refused takes no place
                with pytest.raises(NotFound, match="GET /v1/jobs lists the jobs"):
                    await hub.following("none", 0).__aenter__()
            async with hub.following(job_id, 0), hub.following(job_id, 0):
                pass

    asyncio.run(run())


def test_a_number_that_is_not_there_yet_is_waited_for(store: Store) -> None:
    async def run() -> None:
        job_id = submit(store)
        async with event_hub(store, 2) as hub, hub.following(job_id, 3) as ahead, hub.following(job_id, 100) as far:
            append(store, job_id, job_id, job_id)
            assert await first(ahead, 1) == [4]
            lifecycle.cancel(store, job_id)
            assert await first(ahead, 2) == [5]
            assert await first(far, 1) == []  # the job has ended: the number never comes

    asyncio.run(run())


def test_a_job_that_is_gone_ends_its_streams(sqlite_store: Store) -> None:
    async def run() -> None:
        job_id = submit(sqlite_store)
        async with (
            event_hub(sqlite_store, 2) as hub,
            hub.following(job_id, 1) as live,
            hub.following(job_id, 0) as late,
        ):
            with sqlite_store.connect() as connection:
                connection.exec_driver_sql("DELETE FROM jobs")
                connection.commit()
            assert await first(live, 1) == []
            assert await first(late, 1) == []

    asyncio.run(run())


def test_the_end_of_the_service_ends_every_stream(sqlite_store: Store) -> None:
    async def run() -> None:
        job_id = submit(sqlite_store)
        async with event_hub(sqlite_store, 2) as hub, hub.following(job_id, 0) as stream:
            events = stream.events()
            assert number_of(await anext(events)) == 1
            waiting = asyncio.ensure_future(anext(events, None))
            await asyncio.sleep(0)
            hub.end()
            assert await waiting is None
            async with hub.following(job_id, 0) as another:
                assert await first(another, 1) == []

    asyncio.run(run())


def test_a_database_that_does_not_answer_is_told_once_and_waited_for(
    sqlite_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(before: str, after: str) -> None:
        with sqlite_store.connect() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {before} RENAME TO {after}")
            connection.commit()

    async def run() -> None:
        job_id = submit(sqlite_store)
        async with event_hub(sqlite_store, 2) as hub, hub.following(job_id, 1) as stream:
            reading = asyncio.create_task(first(stream, 1))
            rename("jobs", "away")
            async with asyncio.timeout(DEADLINE):
                while not caplog.messages:
                    await asyncio.sleep(0)
            with pytest.raises(DatabaseError):
                await hub._look()
            rename("away", "jobs")
            append(sqlite_store, job_id)
            assert await reading == [2]

    with caplog.at_level(logging.WARNING, logger="forerun.api"):
        asyncio.run(run())
    assert caplog.messages == ["streams of events wait for the database: no such table: jobs"]


def test_transactions_that_commit_in_another_order_than_they_began(postgres_store: Store) -> None:
    """Rows of a transaction that commits late have lower ids than rows that were read before."""

    async def run() -> None:
        early, late = submit(postgres_store), submit(postgres_store)
        async with event_hub(postgres_store, 2) as hub, hub.following(early, 1) as a, hub.following(late, 1) as b:
            with postgres_store.write() as session:
                append_event(session, early, "trial", TRIAL, datetime.now(UTC))
                append(postgres_store, late)
                assert await first(b, 1) == [2]  # the event with the higher id is out
            assert await first(a, 1) == [2]

    asyncio.run(run())


def test_a_hub_is_whole_after_a_stream_was_cut(sqlite_store: Store) -> None:
    async def run() -> None:
        job_id = submit(sqlite_store)

        async def follow(hub: EventHub) -> None:
            async with hub.following(job_id, 1) as stream:
                await first(stream, 1)

        async with event_hub(sqlite_store, 1) as hub:
            for _ in range(3):
                task = asyncio.create_task(follow(hub))
                async with asyncio.timeout(DEADLINE):
                    while not hub._topics:
                        await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            async with hub.following(job_id, 0) as stream:
                assert await first(stream, 1) == [1]

    asyncio.run(run())
