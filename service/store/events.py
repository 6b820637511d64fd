"""The events of a job in SQL, numbered 1, 2, 3, …: reading them in order, and writing the next one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from service.store import records
from service.store.engine import Session
from service.store.rows import columns_of, records_of
from service.store.tables import Event, Job


def events_after(session: Session, job_id: str, number: int, limit: int = 500) -> Sequence[records.Event]:
    """The events of a job whose number is above `number`, in order, at most `limit` of them."""
    query = select(*columns_of(Event, records.Event)).where(Event.job_id == job_id, Event.number > number)
    return records_of(records.Event, session.execute(query.order_by(Event.number).limit(limit)))


def append_event(session: Session, job_id: str, kind: str, data: Mapping[str, Any], created_at: datetime) -> None:
    """Write an event of a job under the next number of its events."""
    next_number = update(Job).where(Job.id == job_id).values(last_event=Job.last_event + 1).returning(Job.last_event)
    insert_event(session, job_id, session.scalars(next_number).one(), kind, data, created_at)


def insert_event(
    session: Session, job_id: str, number: int, kind: str, data: Mapping[str, Any], created_at: datetime
) -> None:
    """Write an event of a job under `number`, which the job's row has already as that of its last event."""
    values = {"number": number, "kind": kind, "data": data, "created_at": created_at}
    session.execute(insert(Event).values(job_id=job_id, **values))
