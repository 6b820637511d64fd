"""Idempotency keys."""

from sqlalchemy.orm import Session

from service.store.tables import IdempotencyKey


def get_idempotency_key(session: Session, key: str) -> IdempotencyKey | None:
    return session.get(IdempotencyKey, key)
