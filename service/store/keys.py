"""Idempotency keys in SQL: the keys of requests, each owner's for themselves, and the jobs that these made."""

from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from service.store import records
from service.store.engine import Session
from service.store.ownership import owner_of
from service.store.rows import columns_of, record_of
from service.store.tables import IdempotencyKey


class KeyTaken(Exception):
    """Another transaction has stored the idempotency key meanwhile; this one must end without a commit."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def get_idempotency_key(session: Session, key: str) -> records.IdempotencyKey | None:
    """What is stored of an idempotency key of the session's owner; None when it is new."""
    its = (IdempotencyKey.owner == (owner_of(session) or ""), IdempotencyKey.key == key)
    query = select(*columns_of(IdempotencyKey, records.IdempotencyKey)).where(*its)
    row = session.execute(query).one_or_none()
    return None if row is None else record_of(records.IdempotencyKey, row)


def insert_idempotency_key(session: Session, key: str, *, fingerprint: str, job_id: str, created_at: datetime) -> None:
    """Store the idempotency key of the request that made a job, as one of the session's owner. Raises KeyTaken where
    the key is not new any more."""
    values = {
        "owner": owner_of(session) or "",
        "key": key,
        "fingerprint": fingerprint,
        "job_id": job_id,
        "created_at": created_at,
    }
    try:
        session.execute(insert(IdempotencyKey).values(values))
    except IntegrityError:
        raise KeyTaken(key) from None
