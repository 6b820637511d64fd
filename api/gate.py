"""Who a request is from, and what an API key may do at most: the gate that every request comes through.

What SQL says of a key is remembered for REMEMBERED_SECONDS, so that a busy client costs one query a second. A key that
this process revokes is forgotten at once; one that another process revokes (a second service, the command line) ends
within that time.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import get_args

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from service.access import keys
from service.errors import TooManyRequests
from service.jobs.lifecycle import hash_of, now
from service.settings import Auth
from service.store.api_keys import has_api_key
from service.store.engine import Store
from service.store.records import ApiKey
from service.wire.answers import Scope

REMEMBERED_SECONDS = 1.0
MOST_REMEMBERED = 1000  # credentials
SCOPES: tuple[Scope, ...] = get_args(Scope)  # each has what those before it have


@dataclass(frozen=True)
class Credential:
    """What a request says that it is from: an API key, or the cookie of a browser that is logged in."""

    secret: str
    is_cookie: bool = False


@dataclass(frozen=True)
class Caller:
    """Who a request is from. `scope` is None where that is not known and need not be; without a key a caller is either
    that, or everybody in a service that asks for no keys."""

    scope: Scope | None
    key: ApiKey | None = None
    is_login: bool = False  # by a cookie, which stands for the key

    @property
    def owner(self) -> str | None:
        """Whose the jobs are that the caller submits."""
        return None if self.key is None else self.key.owner

    def may(self, scope: Scope) -> bool:
        """Whether the caller may do what takes this scope."""
        return self.scope is not None and SCOPES.index(self.scope) >= SCOPES.index(scope)


NOBODY, EVERYBODY = Caller(None), Caller("admin")


class Gate:
    """Knows callers by what they send, and counts what each API key does.

    `auth`: `keys` asks for a key, `open` for none, `auto` for one as soon as there was ever one. `rate` is what a key
    may send, such as 100/second; `event_streams` is how many streams of events it may follow at once.
    """

    def __init__(self, auth: Auth = "auto", rate: str = "100/second", event_streams: int = 100) -> None:
        self._auth, self._rate, self._event_streams = auth, parse(rate), event_streams
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._streams: Counter[str] = Counter()
        self._keys: dict[tuple[bool, str], tuple[ApiKey, float]] = {}
        self._noted: dict[str, datetime] = {}
        self._open_until = 0.0
        self._closed = False

    # --- who it is -----------------------------------------------------------------------------------

    def remembers_whether_open(self) -> bool | None:
        """Whether the service asks for no key, as far as that is known without SQL; None where it is not."""
        if self._auth != "auto" or self._closed:
            return self._auth == "open"
        return True if time.monotonic() < self._open_until else None

    def is_open(self, store: Store) -> bool:
        """Whether the service asks for no key."""
        known = self.remembers_whether_open()
        if known is not None:
            return known
        with store.read() as session:
            self._closed = has_api_key(session)  # keys are never deleted: it stays so
        self._open_until = time.monotonic() + REMEMBERED_SECONDS
        return not self._closed

    def remembered(self, credential: Credential) -> ApiKey | None:
        """The API key behind this credential, as far as that is known without SQL. Raises NotAuthenticated where it has
        expired meanwhile."""
        key, until = self._keys.get(_name(credential), (None, 0.0))
        return None if key is None or time.monotonic() >= until else keys.checked(key)

    def known(self, store: Store, credential: Credential) -> ApiKey:
        """The API key behind this credential. Raises NotAuthenticated where there is none that is valid."""
        look_up = keys.key_of_login if credential.is_cookie else keys.key_of
        key = look_up(store, credential.secret)
        if len(self._keys) >= MOST_REMEMBERED:
            self._keys.clear()
        self._keys[_name(credential)] = (key, time.monotonic() + REMEMBERED_SECONDS)
        return key

    def is_use_to_be_noted(self, key: ApiKey) -> bool:
        """Whether the use of an API key at present is to be written; once a minute it is."""
        at = now()
        if not keys.is_use_due(self._noted.get(key.id, key.last_used_at), at):
            return False
        if len(self._noted) >= MOST_REMEMBERED:
            self._noted.clear()
        self._noted[key.id] = at
        return True

    def forget(self) -> None:
        """Ask SQL again about every key, because one of them has changed."""
        self._keys.clear()
        self._open_until = 0.0

    # --- how much it may do --------------------------------------------------------------------------

    async def count(self, key: ApiKey) -> None:
        """Count a request of an API key. Raises TooManyRequests where it is one too many."""
        if not await self._limiter.hit(self._rate, key.id):
            reset, _ = await self._limiter.get_window_stats(self._rate, key.id)
            wait = max(1, ceil(reset - time.time()))
            raise TooManyRequests(f"an API key may send {_said(self._rate)}; try again in {wait} s", wait)

    @contextmanager
    def stream(self, key: ApiKey | None) -> Iterator[None]:
        """Count a stream of events of an API key while it lasts. Raises TooManyRequests where it is one too many."""
        if key is None:
            yield
            return
        if self._streams[key.id] >= self._event_streams:
            raise TooManyRequests(
                f"an API key may follow {self._event_streams} streams of events at once; end one of them", 1
            )
        self._streams[key.id] += 1
        try:
            yield
        finally:
            self._streams[key.id] -= 1


def _name(credential: Credential) -> tuple[bool, str]:
    return credential.is_cookie, hash_of(credential.secret)  # the secret itself is not kept in memory


def _said(rate: RateLimitItem) -> str:
    return f"{rate.amount} requests per {rate.multiples} {rate.GRANULARITY.name}".replace(" 1 ", " ")
