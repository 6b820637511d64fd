"""The events of a job in SQL, numbered 1, 2, 3, …: reading them in order, and writing the next one."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Integer, String, bindparam, insert, select, tuple_, update

from service.store import records
from service.store.engine import Session
from service.store.rows import columns_of, records_of
from service.store.tables import DELIVERIES, EVENTS, Event, Job, Webhook, WebhookSubscription
from service.wire.webhooks import event_type


def events_after(session: Session, job_id: str, number: int, limit: int = 500) -> Sequence[records.Event]:
    """The events of a job whose number is above `number`, in order, at most `limit` of them."""
    query = select(*columns_of(Event, records.Event)).where(Event.job_id == job_id, Event.number > number)
    return records_of(records.Event, session.execute(query.order_by(Event.number).limit(limit)))


def heads_of(session: Session, job_ids: Collection[str]) -> Mapping[str, records.EventsHead]:
    """How far the events of each of these jobs have come; a job that is not there is left out. An event's number is
    counted in the transaction that writes the event, so every event up to a head can be read."""
    query = select(*columns_of(Job, records.EventsHead)).where(Job.id.in_(job_ids))
    return {head.id: head for head in records_of(records.EventsHead, session.execute(query))}


def events_between(
    session: Session, spans: Mapping[str, tuple[int, int]], limit: int = 500
) -> Mapping[str, Sequence[records.Event]]:
    """The events of several jobs, for each the numbers after the first of its span up to the second, in order. All
    spans together give at most `limit` events; what is left out is the end of some of them."""
    numbers = ((job_id, number) for job_id, (after, last) in spans.items() for number in range(after + 1, last + 1))
    query = select(Event.job_id, *columns_of(Event, records.Event)).order_by(Event.job_id, Event.number)
    rows = session.execute(query.where(tuple_(Event.job_id, Event.number).in_(list(islice(numbers, limit))))).all()
    found: dict[str, list[records.Event]] = {}
    for row, event in zip(rows, records_of(records.Event, rows), strict=True):
        found.setdefault(row.job_id, []).append(event)
    return found


def append_event(session: Session, job_id: str, kind: str, data: Mapping[str, Any], created_at: datetime) -> None:
    """Write an event of a job under the next number of its events."""
    next_number = update(Job).where(Job.id == job_id).values(last_event=Job.last_event + 1).returning(Job.last_event)
    insert_event(session, job_id, session.scalars(next_number).one(), kind, data, created_at)


def append_old_events(session: Session, job_id: str, events: Sequence[tuple[str, Mapping[str, Any], datetime]]) -> None:
    """Write events of a job, each its kind, data and time, under the next numbers; no webhook is told of them, for they
    were told of another job."""
    if events:
        counted = update(Job).where(Job.id == job_id).values(last_event=Job.last_event + len(events))
        first = session.scalars(counted.returning(Job.last_event)).one() - len(events) + 1
        rows = [
            {"job_id": job_id, "number": number, "kind": kind, "data": data, "created_at": created_at}
            for number, (kind, data, created_at) in enumerate(events, start=first)
        ]
        session.execute(insert(Event), rows)


_INSERT_EVENT = insert(EVENTS)
# for each webhook that is told of events of that type, that it is to be told of this one
_told = (
    select(Webhook.id, bindparam("job", type_=String), bindparam("event_number", type_=Integer))
    .join(WebhookSubscription, WebhookSubscription.webhook_id == Webhook.id)
    .where(WebhookSubscription.event == bindparam("event"), Webhook.disabled_at.is_(None))
)
_INSERT_DELIVERIES = insert(DELIVERIES).from_select(["webhook_id", "job_id", "number"], _told)


def insert_event(
    session: Session, job_id: str, number: int, kind: str, data: Mapping[str, Any], created_at: datetime
) -> None:
    """Write an event of a job under `number`, which the job's row has already as that of its last event."""
    event = {"job_id": job_id, "number": number, "kind": kind, "data": data, "created_at": created_at}
    session.execute(_INSERT_EVENT, event)
    session.execute(_INSERT_DELIVERIES, {"job": job_id, "event_number": number, "event": event_type(kind, data)})
