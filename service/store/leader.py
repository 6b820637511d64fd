"""The lease of the service that leads: one row, read and changed under its lock."""

from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import select, update

from service.store import records
from service.store.engine import Session
from service.store.rows import columns_of, record_of
from service.store.tables import Leader


def get_leader(session: Session, *, lock: bool = False, share: bool = False) -> records.Leader:
    """The row of the lease: locked for a caller that goes on to change it (`lock`), or only against such callers
    (`share`) until the transaction ends."""
    query = select(*columns_of(Leader, records.Leader))
    if lock or share:
        query = query.with_for_update(read=share)
    return record_of(records.Leader, session.execute(query).one())


def set_leader(session: Session, leader: records.Leader) -> None:
    """Write who leads. The caller holds the row's lock."""
    session.execute(update(Leader).values(asdict(leader)))


def set_standby_seen(session: Session, leader: records.Leader, seen_at: datetime) -> None:
    """Write that a service stands by. The caller holds the row's lock."""
    set_leader(session, replace(leader, standby_seen_at=seen_at))
