"""Queries about what happened to a job."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.tables import Event


def events_after(session: Session, job_id: str, number: int, limit: int = 500) -> Sequence[Event]:
    query = select(Event).where(Event.job_id == job_id, Event.number > number).order_by(Event.number).limit(limit)
    return session.scalars(query).all()
