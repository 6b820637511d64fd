"""Use cases of API keys: they are made, listed, revoked, and known again when they come with a request.

A key is `frn_<id>_<secret>`, so that scanners of repositories and logs can find it by its beginning. The secret has
256 random bits; so a plain SHA-256 of the key is kept (decision 0020), and what comes is compared in constant time.
"""

import hmac
import re
import secrets
from datetime import datetime, timedelta

from service.errors import FieldError, InvalidInput, NotAuthenticated
from service.jobs.lifecycle import hash_of, now
from service.store import api_keys
from service.store.engine import Session, Store
from service.store.records import ApiKey
from service.wire.answers import Scope

PREFIX = "frn_"
KEY = re.compile(rf"{PREFIX}([0-9a-f]{{12}})_[A-Za-z0-9_-]{{43}}")
ANOTHER = "ask an admin for another, or make one on the server: forerun keys create OWNER --local"
LAST_USE_EVERY = timedelta(minutes=1)  # a key's last use is written no more often
LOGIN_LASTS = timedelta(hours=12)


def create_key(
    db: Store, owner: str, *, name: str = "", scope: Scope = "submit", expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Make an API key of `owner`, and return it with its secret, which is told here and never again. Raises
    InvalidInput where it would expire before it is used."""
    made_at = now()
    if expires_at is not None and expires_at <= made_at:
        raise InvalidInput([FieldError("expires_at", expires_at.isoformat(), "this is over; give a time to come")])
    key_id = secrets.token_hex(6)
    text = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=key_id,
        hash=hash_of(text),
        owner=owner,
        name=name,
        scope=scope,
        created_at=made_at,
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
    )
    with db.write() as session:
        api_keys.insert_api_key(session, key)
    return key, text


def revoke_key(db: Store, key_id: str) -> ApiKey:
    """Revoke an API key, which ends the logins by it as well, and return it; asking again changes nothing. `key_id` is
    its id, with or without `frn_` before it. Raises NotFound where there is no such key."""
    with db.write() as session:
        api_keys.revoke_api_key(session, key_id.removeprefix(PREFIX), now())
        return _found(session, key_id.removeprefix(PREFIX))


def key_of(db: Store, text: str) -> ApiKey:
    """The API key that `text` is. Raises NotAuthenticated where it is none, or one that is revoked or expired; the text
    is not repeated."""
    match = KEY.fullmatch(text)
    known = None
    if match is not None:
        with db.read() as session:
            known = api_keys.find_api_key(session, match[1])
    if known is None or not hmac.compare_digest(known.hash, hash_of(text)):
        raise NotAuthenticated(f"this is no API key of this service; {ANOTHER}")
    return checked(known)


def checked(key: ApiKey) -> ApiKey:
    """The API key, unchanged. Raises NotAuthenticated where it is revoked, or expired by now."""
    if key.revoked_at is not None:
        raise NotAuthenticated(f"the API key {PREFIX}{key.id} was revoked; {ANOTHER}")
    if key.expires_at is not None and key.expires_at <= now():
        raise NotAuthenticated(
            f"the API key {PREFIX}{key.id} has expired at {key.expires_at:%Y-%m-%d %H:%M} UTC; {ANOTHER}"
        )
    return key


def note_use(db: Store, key: ApiKey) -> None:
    """Write that the API key is used now, where that was not written within the last minute."""
    at = now()
    with db.write() as session:
        api_keys.set_last_use(session, key.id, at, at - LAST_USE_EVERY)


def is_use_due(noted_at: datetime | None, at: datetime) -> bool:
    """Whether the use of an API key at the time `at` is to be written, where one was noted last at `noted_at`."""
    return noted_at is None or at - noted_at >= LAST_USE_EVERY


# --- browsers that are logged in --------------------------------------------------------------------


def log_in(db: Store, key: ApiKey) -> tuple[str, datetime]:
    """Log a browser in by an API key: return the secret of its cookie, of which a hash is kept, and when it ends, which
    is before the key does."""
    at = now()
    ends = min(at + LOGIN_LASTS, key.expires_at or datetime.max.replace(tzinfo=at.tzinfo))
    secret = secrets.token_urlsafe(32)
    with db.write() as session:
        api_keys.insert_login(session, key.id, hash_of(secret), created_at=at, expires_at=ends)
    return secret, ends


def key_of_login(db: Store, secret: str) -> ApiKey:
    """The API key that the browser with this cookie is logged in by. Raises NotAuthenticated where it is not, or not
    any more."""
    with db.read() as session:
        key = api_keys.find_login(session, hash_of(secret), now())
    if key is None:
        raise NotAuthenticated("you are not logged in any more; log in with an API key")
    return checked(key)


def log_out(db: Store, secret: str) -> None:
    """Log the browser with this cookie out; one that is not logged in stays so."""
    with db.write() as session:
        api_keys.delete_login(session, hash_of(secret))


def _found(session: Session, key_id: str) -> ApiKey:
    key = api_keys.find_api_key(session, key_id)
    assert key is not None
    return key
