"""Tells webhooks of events, off the outbox: at least once each, and of each job in order.

A message is marked after it was sent, so one whose mark is lost, as the service was killed in between, is sent again:
with the same `webhook-id`, by which a receiver knows it. A webhook that fails is tried again at growing intervals, with
the same event; later ones wait behind it.
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable
from functools import partial

from service.errors import NotFound
from service.jobs import webhooks as use_cases
from service.jobs.lifecycle import now
from service.store.engine import DatabaseError, Store
from service.store.webhooks import DueDelivery
from service.webhooks.sender import GONE, Message, Sender
from service.wire.webhooks import event_type

log = logging.getLogger(__name__)

AT_A_TIME = 8  # webhooks that are told of something
IN_A_ROW = 50  # messages to one of them, before another has its place


class Dispatcher:
    """Tells the webhooks in `db`, in a thread of its own, as long as this service `leads`: of several on one database
    one is enough, though two at the same time do no harm but to send twice."""

    def __init__(self, db: Store, sender: Sender, leads: Callable[[], bool], *, poll_seconds: float = 1.0) -> None:
        self._db, self._sender, self._leads, self._poll_seconds = db, sender, leads, poll_seconds
        self._told: dict[str, asyncio.Task[None]] = {}  # webhooks that are told of something at present
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._begun = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        self._begun.wait()

    def stop(self) -> None:
        """End the thread; a message that is under way is cut off, and sent again by whoever leads next."""
        if self._loop is not None and self._main is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._watch())

    async def _watch(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._begun.set()
        away = False
        while True:
            try:
                await self.begin_what_is_due()
                away = False
            except DatabaseError as error:
                if not away:
                    log.warning("webhooks wait for the database: %s", type(error).__name__)
                away = True
            await asyncio.sleep(self._poll_seconds)

    async def begin_what_is_due(self) -> None:
        """Begin to tell webhooks of what they are to be told, as many at a time as there may be."""
        if not self._leads() or self._db.trouble is not None:  # what cannot be marked as told would be told again
            return
        due = [one for one in await asyncio.to_thread(use_cases.due, self._db, now()) if one not in self._told]
        random.shuffle(due)  # none is always the last
        for webhook_id in due[: AT_A_TIME - len(self._told)]:
            task = self._told[webhook_id] = asyncio.create_task(self._tell(webhook_id))
            task.add_done_callback(partial(self._ended, webhook_id))

    def _ended(self, webhook_id: str, task: asyncio.Task[None]) -> None:
        del self._told[webhook_id]
        if not task.cancelled() and task.exception() is not None:
            log.error("the webhook %s cannot be told", webhook_id, exc_info=task.exception())

    async def _tell(self, webhook_id: str) -> None:
        """Tell a webhook of what it is to be told, one event after another, until one fails."""
        try:
            for _ in range(IN_A_ROW):
                found = await asyncio.to_thread(use_cases.next_of, self._db, webhook_id)
                if found is None or not self._leads():
                    return
                webhook, delivery = found
                sent = await self._sender.send(webhook.url, webhook.secret, message_of(delivery))
                if sent.failure is None:
                    await asyncio.to_thread(use_cases.delivered, self._db, webhook, delivery)
                    continue
                gone = sent.status == GONE
                again = await asyncio.to_thread(use_cases.failed, self._db, webhook, sent.failure, for_good=gone)
                then = "it is disabled" if again is None else f"it is tried again at {again:%H:%M:%S} UTC"
                log.warning(
                    "the webhook %s cannot be told of %s: %s; %s", webhook.id, delivery.job_id, sent.failure, then
                )
                return
        except NotFound:
            return  # it was deleted meanwhile
        except DatabaseError as error:
            log.warning("the webhook %s waits for the database: %s", webhook_id, type(error).__name__)


def message_of(delivery: DueDelivery) -> Message:
    """The message that tells of an event. Its id is the event's, so it is the same each time it is made."""
    return Message(
        id=f"event-{delivery.job_id}-{delivery.number}",
        type=event_type(delivery.kind, delivery.data),
        at=delivery.created_at,
        data={"job_id": delivery.job_id, "number": delivery.number, **delivery.data},
    )
