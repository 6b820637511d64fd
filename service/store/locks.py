"""Locks on a name, where no row is there to be locked yet."""

from sqlalchemy import String, bindparam, func, select

from service.store.engine import Session

_LOCK = select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name", type_=String), 0)))


def lock_name(session: Session, name: str) -> None:
    """Lock a name until the transaction ends: of two that lock it at once the second waits for the first, as on SQLite
    every writer does anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_LOCK, {"name": name})
