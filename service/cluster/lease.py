"""The lease by which one service of several on a database leads: it alone changes where jobs stand.

The lease is a row in the database: who holds it, a fence number that grows with every takeover, and when it expires. A
leader renews it; another service takes over when it has expired, or at once when its holder has given it back. Every
change by a leader first looks, in its own transaction, whether the row still has its fence number (`Lease.store`): one
that was superseded without knowing changes nothing, however late it comes.

Clocks of machines decide nothing. Expiry is told by the database's clock; should that jump, nobody takes over a lease
that it sees renewed, and nobody waits for one longer than it lasts.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from service.store import clock
from service.store.engine import DatabaseError, Session, Store
from service.store.leader import get_leader, set_leader, set_standby_seen
from service.store.records import Leader

log = logging.getLogger(__name__)

LEASE_S = 15.0  # how long a lease lasts after each renewal
RENEWALS = 5  # in that time
END_SHARE = 8 / 15  # of a lease, after which what a leader's own head runs ends unless the lease was renewed
WATCHED_S = 60.0  # how long a standby that was seen counts as there


class NotLeader(Exception):
    """This service does not lead, or does not lead any more: it may not change where jobs stand."""


class Lease:
    """One service's hold, or wish for a hold, of the lease in the database `db`.

    `holder`: an id that the service keeps when it is started anew, so that it takes up its own lease at once; no two
    processes may run with the same one. `url`: of its API, for people. `seconds`: how long the lease lasts. `monotonic`
    gives seconds by a clock that does not jump.
    """

    def __init__(
        self,
        db: Store,
        holder: str | None = None,
        url: str = "",
        *,
        seconds: float = LEASE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = db.guarded(self._require)
        self._db, self._url, self._seconds, self._monotonic = db, url, seconds, monotonic
        self._holder = holder or secrets.token_hex(16)
        self._lock = threading.Lock()  # the controller's passes and the renewals are two threads
        self._fence: int | None = None  # None: does not lead
        self._has_led = False
        self._renewed_at = 0.0
        self._cluster: str | None = None
        self._seen: tuple[Leader, float] | None = None  # the lease of another service, and since when it is unchanged
        self._standby: tuple[object, float] | None = None
        self._leader: Leader | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def leads(self) -> bool:
        """Whether this service led when it last looked. What it changes is checked again in each transaction."""
        return self._fence is not None

    @property
    def leader(self) -> Leader | None:
        """Who led when this service last looked; None while it has not."""
        return self._leader

    def keep(self, cluster: str) -> bool:
        """Renew the lease if it is held and that is due, take it over if it may be; return whether this service leads.
        `cluster` is the id of the cluster that it submits to."""
        with self._lock:
            due = self._renewed_at + self._seconds / RENEWALS
            if self._fence is not None and cluster == self._cluster and self._monotonic() < due:
                return True
            return self._look(cluster)

    def renew(self) -> bool:
        """Renew the lease if it is held, and return whether it still is."""
        with self._lock:
            return self._fence is not None and self._look(self._cluster)

    @property
    def must_end_within(self) -> float | None:
        """Seconds from the last renewal after which what runs on a Ray head of the leader's own has to end, for another
        service may take over soon; None while no other service is there."""
        if not self.leads:
            return 0.0
        watched = self._standby is not None and self._monotonic() - self._standby[1] < WATCHED_S
        return self._seconds * END_SHARE if watched else None

    def start(self, renewed: Callable[[float | None], None]) -> None:
        """Start the thread that renews the lease while it is held, whatever the controller waits for. `renewed` is told
        `must_end_within` after each renewal, and when another service has taken over."""
        self._thread = threading.Thread(target=self._run, args=(renewed,), name="lease", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and give the lease back if it is held: the next service takes over at once. To be called when
        nothing that only this service knows of runs any more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._fence is None:
                return
            try:
                with self.store.write() as session:
                    mine = get_leader(session, lock=True)
                    set_leader(session, replace(mine, holder=None, cluster=None, expires_at=None))
            except (NotLeader, DatabaseError) as error:  # it expires by itself
                log.warning("the lease was not given back: %s", error)
            self._fence = None

    def _run(self, renewed: Callable[[float | None], None]) -> None:
        while not self._closing.wait(self._seconds / RENEWALS):
            try:
                if self.leads:
                    self.renew()
                    renewed(self.must_end_within)
            except Exception as error:  # the thread must outlive a database that is away; the controller tells of it
                log.debug("the lease was not renewed: %s", error)

    def _look(self, cluster: str | None) -> bool:
        """Read the row under its lock; renew it, take over, or tell that this service stands by."""
        began = self._monotonic()
        with self._db.write() as session:
            row = get_leader(session, lock=True)
            now = clock.database_time(session)
            held = self._fence is not None and (row.holder, row.fence) == (self._holder, self._fence)
            leads = held or self._may_take(row, began, expired=row.expires_at is None or row.expires_at <= now)
            if leads:
                fence = row.fence if held else row.fence + 1
                until = now + timedelta(seconds=self._seconds)
                standby = row.standby_seen_at if held else None
                after = Leader(self._holder, fence, self._url, cluster, expires_at=until, standby_seen_at=standby)
                set_leader(session, after)
            else:
                after = row
                set_standby_seen(session, row, now)
        self._leader = after
        self._fence = after.fence if leads else None
        self._has_led |= leads
        if leads:
            self._renewed_at, self._cluster, self._seen = began, cluster, None
            self._see_standby(row, began)
        return leads

    def _may_take(self, row: Leader, now: float, *, expired: bool) -> bool:
        """Whether the lease of another service may be taken over, as the row has it."""
        if row.holder is None:
            return True
        if row.holder == self._holder and not self._has_led:  # this service's own, from before it was started anew
            return True
        key = replace(row, standby_seen_at=None)
        if self._seen is None or self._seen[0] != key:
            self._seen = key, now
        unchanged = now - self._seen[1]
        return unchanged >= self._seconds or (expired and unchanged >= 2 * self._seconds / RENEWALS)

    def _see_standby(self, row: Leader, now: float) -> None:
        if row.standby_seen_at is None:
            return
        if self._standby is None or self._standby[0] != row.standby_seen_at:
            self._standby = row.standby_seen_at, now

    def _require(self, session: Session) -> None:
        """Raise NotLeader unless the row has this service's fence number; it stays so until the transaction ends."""
        row = get_leader(session, share=True)
        if self._fence is None or (row.holder, row.fence) != (self._holder, self._fence):
            raise NotLeader("another service leads")
