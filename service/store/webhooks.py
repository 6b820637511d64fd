"""Webhooks in SQL, and the outbox of what they are still to be told."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from service.errors import NotFound
from service.store.engine import Session
from service.store.rows import columns_of, record_of, records_of
from service.store.tables import Delivery, Event, Webhook, WebhookSubscription


@dataclass(frozen=True)
class WebhookRecord:
    """A webhook, and how telling it goes. `secret`: what its signatures are made with."""

    id: str
    url: str
    secret: str = field(repr=False)
    created_at: datetime
    delivered_at: datetime | None
    failures: int
    failing_since: datetime | None
    next_try_at: datetime | None
    last_failure: str | None
    disabled_at: datetime | None
    events: tuple[str, ...]


@dataclass(frozen=True)
class DueDelivery:
    """An event that a webhook is to be told next."""

    id: int
    job_id: str
    number: int
    kind: str
    data: dict[str, Any]
    created_at: datetime  # of the event


def list_webhooks(session: Session) -> Sequence[WebhookRecord]:
    """All webhooks, oldest first."""
    subscriptions = _subscriptions(session)
    rows = session.execute(_select_webhooks().order_by(Webhook.created_at, Webhook.id))
    return [record_of(WebhookRecord, row, events=subscriptions.get(row.id, ())) for row in rows]


def get_webhook(session: Session, webhook_id: str) -> WebhookRecord:
    """The webhook of that id. Raises NotFound when there is none."""
    row = session.execute(_select_webhooks().where(Webhook.id == webhook_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no webhook {webhook_id}; GET /v1/webhooks lists them")
    return record_of(WebhookRecord, row, events=_subscriptions(session).get(webhook_id, ()))


def count_webhooks(session: Session) -> int:
    """How many webhooks there are."""
    return session.scalar(select(func.count()).select_from(Webhook)) or 0


def due_webhooks(session: Session, now: datetime) -> Sequence[str]:
    """The ids of the webhooks that are to be told of something, and need not wait for their next try at the time
    `now`."""
    waits = select(Delivery.id).where(Delivery.webhook_id == Webhook.id).exists()
    due = Webhook.next_try_at.is_(None) | (Webhook.next_try_at <= now)
    return session.scalars(select(Webhook.id).where(Webhook.disabled_at.is_(None), due, waits)).all()


def next_delivery(session: Session, webhook_id: str) -> DueDelivery | None:
    """What a webhook is to be told next; None when there is nothing."""
    query = (
        select(Delivery.id, Delivery.job_id, Delivery.number, Event.kind, Event.data, Event.created_at)
        .join(Event, (Event.job_id == Delivery.job_id) & (Event.number == Delivery.number))
        .where(Delivery.webhook_id == webhook_id)
        .order_by(Delivery.id)
        .limit(1)
    )
    found = records_of(DueDelivery, session.execute(query))
    return found[0] if found else None


def _select_webhooks() -> Any:
    return select(*columns_of(Webhook, WebhookRecord))


def _subscriptions(session: Session) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in session.execute(select(WebhookSubscription).order_by(WebhookSubscription.event)).scalars():
        found[row.webhook_id] = (*found.get(row.webhook_id, ()), row.event)
    return found


# --- changes ---------------------------------------------------------------------------------------------


def find_by_url(session: Session, url: str) -> str | None:
    """The id of the webhook with that URL; None when there is none."""
    return session.scalar(select(Webhook.id).where(Webhook.url == url))


def insert_webhook(session: Session, webhook_id: str, url: str, secret: str, created_at: datetime) -> None:
    """Insert a webhook that is told of nothing yet."""
    values = {"id": webhook_id, "url": url, "secret": secret, "created_at": created_at, "failures": 0}
    session.execute(insert(Webhook).values(values))


def renew_webhook(session: Session, webhook_id: str, secret: str, created_at: datetime) -> None:
    """Give a webhook another secret, forget its failures and what it was still to be told."""
    nothing = {"failures": 0, "failing_since": None, "next_try_at": None, "last_failure": None, "disabled_at": None}
    new = {"secret": secret, "created_at": created_at}
    session.execute(update(Webhook).where(Webhook.id == webhook_id).values(new | nothing))
    _clear(session, webhook_id)


def subscribe(session: Session, webhook_id: str, events: Collection[str]) -> None:
    """Have a webhook told of these types of events from now on, and of no others."""
    session.execute(delete(WebhookSubscription).where(WebhookSubscription.webhook_id == webhook_id))
    session.execute(insert(WebhookSubscription), [{"webhook_id": webhook_id, "event": event} for event in events])


def delete_webhook(session: Session, webhook_id: str) -> None:
    """Delete a webhook, with what it was still to be told."""
    session.execute(delete(Webhook).where(Webhook.id == webhook_id))


def note_delivery(session: Session, webhook_id: str, delivery_id: int, at: datetime) -> None:
    """Write that a webhook has been told of an event."""
    session.execute(delete(Delivery).where(Delivery.id == delivery_id))
    well = {"failures": 0, "failing_since": None, "next_try_at": None, "last_failure": None, "delivered_at": at}
    session.execute(update(Webhook).where(Webhook.id == webhook_id).values(well))


def note_failure(
    session: Session, webhook_id: str, *, failures: int, since: datetime, why: str, next_try_at: datetime
) -> None:
    """Write that telling a webhook has failed, and when it is tried again."""
    values = {"failures": failures, "failing_since": since, "last_failure": why, "next_try_at": next_try_at}
    session.execute(update(Webhook).where(Webhook.id == webhook_id).values(values))


def disable_webhook(session: Session, webhook_id: str, why: str, at: datetime) -> None:
    """Write that a webhook is told of nothing any more, and why, and forget what it was still to be told."""
    session.execute(update(Webhook).where(Webhook.id == webhook_id).values(last_failure=why, disabled_at=at))
    _clear(session, webhook_id)


def _clear(session: Session, webhook_id: str) -> None:
    session.execute(delete(Delivery).where(Delivery.webhook_id == webhook_id))
