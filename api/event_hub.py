"""The events of jobs for everybody who follows one: read from SQL once, by one task, and handed out in the event loop.

A stream of events costs no thread and no query while nothing happens to its job. While anybody follows, the hub asks
every POLL_SECONDS how far the events of the followed jobs have come, and reads the new ones.

The events of a job are numbered without gaps under the lock of its row, so its numbers become visible in their order;
ids of rows do not on PostgreSQL. So what is new is told by number, job by job.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from anyio import CapacityLimiter, to_thread
from fastapi.sse import ServerSentEvent

from api import translate
from service.errors import TooManyStreams, no_job
from service.store import records
from service.store.engine import DatabaseError, Store, reason_of, trouble_of
from service.store.events import events_after, events_between, heads_of
from service.wire.states import TERMINAL

POLL_SECONDS = 0.3
MAX_BATCH = 500  # events that one query reads, and that are kept of a job for those who are a little behind

log = logging.getLogger("forerun.api")


@dataclass
class _Topic:
    """What the hub knows of a followed job.

    `last` is the number of its last event as far as known, `over` whether it is the last of all. `recent` are the
    events up to `last`, without a gap and perhaps without the first ones. `news` is set, and replaced, when any of
    these changes.
    """

    last: int
    over: bool
    recent: deque[ServerSentEvent] = field(default_factory=lambda: deque(maxlen=MAX_BATCH))
    news: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0

    def after(self, number: int) -> list[ServerSentEvent]:
        """The events after `number`, where they are all here; else none."""
        missing = self.last - number
        return list(self.recent)[-missing:] if 0 < missing <= len(self.recent) else []

    def tell(self) -> None:
        """Wake up whoever waits for news."""
        news, self.news = self.news, asyncio.Event()
        news.set()


class EventHub:
    """Follows jobs in the `store` for at most `max_streams` streams at a time. It lives in one event loop: made by
    `event_hub`, which also runs its task."""

    def __init__(self, store: Store, max_streams: int) -> None:
        self._store, self._max_streams = store, max_streams
        self._topics: dict[str, _Topic] = {}
        self._streams = 0
        self._ended = False
        self._followed = asyncio.Event()
        # a thread of its own: those of the routes may all be taken
        self._in_thread = partial(to_thread.run_sync, limiter=CapacityLimiter(1))

    def end(self) -> None:
        """End all streams in order, after what they are sending, and those that would begin."""
        self._ended = True
        for topic in self._topics.values():
            topic.tell()

    @asynccontextmanager
    async def following(self, job_id: str, number: int) -> AsyncIterator["Stream"]:
        """Enter with the stream of the job's events after `number`. Raises TooManyStreams where there is no room for
        another one, and NotFound where there is no such job."""
        if self._streams >= self._max_streams:
            raise TooManyStreams(
                f"{self._max_streams} streams of events are open, and there may be no more; close one, or try again "
                "later"
            )
        self._streams += 1
        try:
            head = (await to_thread.run_sync(_heads, self._store, [job_id])).get(job_id)
            if head is None:
                raise no_job(job_id)
            with self._joined(head) as topic:
                yield Stream(self, number, topic, head)
        finally:
            self._streams -= 1

    @contextmanager
    def _joined(self, head: records.EventsHead) -> Iterator[_Topic]:
        topic = self._topics.get(head.id)
        if topic is None:
            topic = self._topics[head.id] = _Topic(head.last_event, head.state in TERMINAL)
            self._followed.set()
        topic.followers += 1
        try:
            yield topic
        finally:
            topic.followers -= 1
            if topic.followers == 0:
                del self._topics[head.id]
                if not self._topics:
                    self._followed.clear()

    async def read(self, job_id: str, number: int) -> list[ServerSentEvent]:
        """The events of a job after `number`, as many as one query reads, from SQL."""
        return await to_thread.run_sync(_events, self._store, job_id, number)

    @property
    def ended(self) -> bool:
        """Whether the streams are to end, as the service does."""
        return self._ended

    async def run(self) -> None:
        """Look for new events for as long as anybody follows. A database that does not answer is asked again."""
        trouble: str | None = None
        while True:
            await self._followed.wait()
            await asyncio.sleep(POLL_SECONDS)
            try:
                while await self._look():
                    pass
                trouble = None
            except DatabaseError as error:
                if trouble is None and trouble_of(error) is None:  # once, not every time; of an outage the store tells
                    trouble = " ".join(str(reason_of(error)).split())
                    log.warning("streams of events wait for the database: %s", trouble)

    async def _look(self) -> bool:
        """Bring the topics up to date, and tell those who follow. Returns whether there may be more to read at once."""
        known = {job_id: topic.last for job_id, topic in self._topics.items() if not topic.over}
        if not known:
            return False
        heads, events = await self._in_thread(_news, self._store, known)
        for job_id, last in known.items():
            if (topic := self._topics.get(job_id)) is not None and topic.last == last:
                _update(topic, heads.get(job_id), events.get(job_id, []))
        behind = (heads[job_id].last_event > topic.last for job_id, topic in self._topics.items() if job_id in heads)
        return bool(events) and any(behind)


class Stream:
    """The events of one job after a number, as they happen."""

    def __init__(self, hub: EventHub, number: int, topic: _Topic, head: records.EventsHead) -> None:
        self._hub, self._number, self._topic, self._head = hub, number, topic, head

    @property
    def is_over(self) -> bool:
        """Whether nothing will ever come."""
        ended = self._head.state in TERMINAL  # as it was when the stream began: the topic may be a moment behind
        last = self._head.last_event if ended else self._topic.last
        return (ended or self._topic.over) and self._number >= last

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Yield the events in order of their numbers, without gaps, up to that of the job's terminal state, or until
        the service ends. Events that the hub no longer has are read from SQL: a client may be slow."""
        topic = self._topic
        while not self._hub.ended and not self.is_over:
            news = topic.news
            if self._number >= topic.last:
                await news.wait()
                continue
            events = topic.after(self._number) or await self._hub.read(self._head.id, self._number)
            if not events:  # the job was deleted
                return
            for event in events:
                self._number += 1
                yield event


@asynccontextmanager
async def event_hub(store: Store, max_streams: int) -> AsyncIterator[EventHub]:
    """Enter with a hub whose task runs; it ends with the block."""
    hub = EventHub(store, max_streams)
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        hub.end()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _update(topic: _Topic, head: records.EventsHead | None, events: list[ServerSentEvent]) -> None:
    """Bring a topic to what was read of its job. A job that is gone has no more events."""
    if head is not None and not events and head.last_event > topic.last:
        return  # read next
    topic.recent.extend(events)
    topic.last += len(events)
    topic.over = head is None or (head.state in TERMINAL and head.last_event == topic.last)
    if events or topic.over:
        topic.tell()


def _heads(store: Store, job_ids: list[str]) -> Mapping[str, records.EventsHead]:
    with store.read() as session:
        return heads_of(session, job_ids)


def _events(store: Store, job_id: str, number: int) -> list[ServerSentEvent]:
    with store.read() as session:
        return [_sent(event) for event in events_after(session, job_id, number, MAX_BATCH)]


def _news(
    store: Store, known: Mapping[str, int]
) -> tuple[Mapping[str, records.EventsHead], Mapping[str, list[ServerSentEvent]]]:
    """How far the events of each job have come, and those after the number that is known of it."""
    with store.read() as session:
        heads = heads_of(session, known)
        spans = {
            job_id: (known[job_id], head.last_event)
            for job_id, head in heads.items()
            if head.last_event > known[job_id]
        }
        events = events_between(session, spans, MAX_BATCH) if spans else {}
    return heads, {job_id: [_sent(event) for event in found] for job_id, found in events.items()}


def _sent(row: records.Event) -> ServerSentEvent:
    """The event as it is sent, written as JSON once for all who follow."""
    event = translate.event(row)
    return ServerSentEvent(raw_data=event.model_dump_json(), event=event.kind, id=str(event.number))
