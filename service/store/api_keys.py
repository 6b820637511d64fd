"""API keys in SQL, and the browsers that are logged in by one: queries and changes."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, delete, insert, or_, select, update

from service.errors import NotFound
from service.store import records
from service.store.engine import Session
from service.store.rows import columns_of, record_of, records_of
from service.store.tables import ApiKey, LoginSession


def find_api_key(session: Session, key_id: str) -> records.ApiKey | None:
    """The API key of that id; None when there is none."""
    row = session.execute(_select_keys().where(ApiKey.id == key_id)).one_or_none()
    return None if row is None else record_of(records.ApiKey, row)


def list_api_keys(session: Session) -> Sequence[records.ApiKey]:
    """Every API key that was ever made, oldest first."""
    return records_of(records.ApiKey, session.execute(_select_keys().order_by(ApiKey.created_at, ApiKey.id)))


def has_api_key(session: Session) -> bool:
    """Whether an API key was ever made, be it usable or not."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def has_usable_api_key(session: Session, now: datetime) -> bool:
    """Whether there is an API key that is neither revoked nor expired."""
    usable = (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))
    return session.scalar(select(ApiKey.id).where(*usable).limit(1)) is not None


def find_login(session: Session, hash_: str, now: datetime) -> records.ApiKey | None:
    """The API key by which the browser whose cookie has that hash is logged in; None when it is not, or no more."""
    query = _select_keys().join(LoginSession, LoginSession.key_id == ApiKey.id)
    row = session.execute(query.where(LoginSession.hash == hash_, LoginSession.expires_at > now)).one_or_none()
    return None if row is None else record_of(records.ApiKey, row)


def _select_keys() -> Select[tuple[object, ...]]:
    return select(*columns_of(ApiKey, records.ApiKey))


# --- changes ---------------------------------------------------------------------------------------------


def insert_api_key(session: Session, key: records.ApiKey) -> None:
    """Insert an API key."""
    session.execute(insert(ApiKey).values(**vars(key)))


def revoke_api_key(session: Session, key_id: str, now: datetime) -> None:
    """Revoke an API key, and end the logins by it; one that is revoked stays as it is. Raises NotFound when there is no
    key of that id."""
    if find_api_key(session, key_id) is None:
        raise NotFound(f"there is no API key {key_id}; GET /v1/keys and `forerun keys list` list them")
    session.execute(update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=now))
    session.execute(delete(LoginSession).where(LoginSession.key_id == key_id))


def set_last_use(session: Session, key_id: str, now: datetime, before: datetime) -> None:
    """Write that an API key is used now, unless it is known to have been used after `before`."""
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < before)
    session.execute(update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=now))


def insert_login(session: Session, key_id: str, hash_: str, *, created_at: datetime, expires_at: datetime) -> None:
    """Log a browser in by an API key, and forget the logins that have expired."""
    session.execute(delete(LoginSession).where(LoginSession.expires_at <= created_at))
    values = {"hash": hash_, "key_id": key_id, "created_at": created_at, "expires_at": expires_at}
    session.execute(insert(LoginSession).values(values))


def delete_login(session: Session, hash_: str) -> None:
    """Log a browser out; one that is not logged in stays so."""
    session.execute(delete(LoginSession).where(LoginSession.hash == hash_))
