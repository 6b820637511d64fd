"""Use cases of webhooks: register, list and delete them, and what telling them came to."""

import secrets
from base64 import b64encode
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from service import metrics
from service.errors import FieldError, InvalidInput
from service.jobs.lifecycle import now, storable
from service.store import webhooks
from service.store.engine import Store, after_commit
from service.store.locks import lock_name
from service.store.webhooks import DueDelivery, WebhookRecord
from service.wire.webhooks import EventType

MAX_WEBHOOKS = 100
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
PATIENCE = timedelta(days=1)  # a webhook that fails for so long is told of nothing any more


def register(db: Store, url: str, events: Collection[EventType]) -> WebhookRecord:
    """Have a URL, which the caller has checked, told of these types of events from now on.

    A URL has one webhook: one that is there already gets a new secret and these events, and is enabled anew. So the
    same request again, whose answer was lost, ends as one alone. Raises InvalidInput where there are too many webhooks.
    """
    secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
    with db.write() as session:
        lock_name(session, "webhooks")
        known = webhooks.find_by_url(session, url)
        if known is None:
            if webhooks.count_webhooks(session) >= MAX_WEBHOOKS:
                message = f"there are {MAX_WEBHOOKS} webhooks already, which is as many as there may be; delete one"
                raise InvalidInput([FieldError("url", url, message)])
            webhook_id = f"hook-{secrets.token_hex(8)}"
            webhooks.insert_webhook(session, webhook_id, url, secret, now())
        else:
            webhook_id = known
            webhooks.renew_webhook(session, webhook_id, secret, now())
        webhooks.subscribe(session, webhook_id, sorted(set(events)))
        return webhooks.get_webhook(session, webhook_id)


def list_webhooks(db: Store) -> Sequence[WebhookRecord]:
    """All webhooks, oldest first."""
    with db.read() as session:
        return webhooks.list_webhooks(session)


def get_webhook(db: Store, webhook_id: str) -> WebhookRecord:
    """The webhook of that id. Raises NotFound when there is none."""
    with db.read() as session:
        return webhooks.get_webhook(session, webhook_id)


def delete(db: Store, webhook_id: str) -> None:
    """Delete a webhook, with what it was still to be told; one that is not there stays so."""
    with db.write() as session:
        webhooks.delete_webhook(session, webhook_id)


# --- telling them ----------------------------------------------------------------------------------------


def due(db: Store, at: datetime) -> Sequence[str]:
    """The ids of the webhooks that are to be told of something at the time `at`."""
    with db.read() as session:
        return webhooks.due_webhooks(session, at)


def next_of(db: Store, webhook_id: str) -> tuple[WebhookRecord, DueDelivery] | None:
    """A webhook and what it is to be told next; None when there is nothing, or it is disabled or waits for its next
    try. Raises NotFound when it was deleted meanwhile."""
    with db.read() as session:
        webhook = webhooks.get_webhook(session, webhook_id)
        waits = webhook.next_try_at is not None and webhook.next_try_at > now()
        delivery = None if waits or webhook.disabled_at else webhooks.next_delivery(session, webhook_id)
        return None if delivery is None else (webhook, delivery)


def delivered(db: Store, webhook: WebhookRecord, delivery: DueDelivery) -> None:
    """Write that a webhook has been told of an event."""
    with db.write() as session:
        webhooks.note_delivery(session, webhook.id, delivery.id, now())
        after_commit(session, metrics.WEBHOOK_DELIVERIES.labels("delivered").inc)


def failed(db: Store, webhook: WebhookRecord, why: str, *, for_good: bool = False) -> datetime | None:
    """Write that telling a webhook has failed, and return when it is tried again, at growing intervals; None when it
    is not, because it is disabled from now on: it has failed for a day, or `for_good`."""
    at, why = now(), storable(why)
    since = webhook.failing_since or at
    failures = webhook.failures + 1
    with db.write() as session:
        if for_good or at - since >= PATIENCE:
            after_commit(session, metrics.WEBHOOK_DELIVERIES.labels("given_up").inc)
            webhooks.disable_webhook(session, webhook.id, why, at)
            return None
        after_commit(session, metrics.WEBHOOK_DELIVERIES.labels("failed").inc)
        pause = min(FIRST_PAUSE * (1 << min(failures - 1, 20)), LONGEST_PAUSE)
        webhooks.note_failure(session, webhook.id, failures=failures, since=since, why=why, next_try_at=at + pause)
        return at + pause
