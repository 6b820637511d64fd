"""A database that cannot be used at present: which errors say so, and one line in the log when it begins and ends.

A full disk, a lock that somebody else holds, a server that is away, a file that is damaged: nothing that a request is
to blame for, so whoever asked may ask again later. Every other error is a mistake of ours and is no outage.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

FULL = "the disk of the database is full; make room there"
LOCKED = "the database is locked: another program holds it for too long"
AWAY = "the database does not answer"
BROKEN = "the database does not answer: its file cannot be read or written"
DAMAGED = "the database is damaged; restore it from a copy"
READ_ONLY = "the database cannot be written"

SQLITE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_PROTOCOL: LOCKED,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_IOERR: BROKEN,
    sqlite3.SQLITE_CANTOPEN: BROKEN,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_READONLY: READ_ONLY,
}  # by the primary result code
# PostgreSQL's SQLSTATEs, and the first two characters of those that mean the same as a class (its manual, appendix A)
SQLSTATES = {
    "53100": FULL,
    "55P03": LOCKED,
    "40P01": LOCKED,
    "25006": READ_ONLY,
    "08": AWAY,
    "53": AWAY,
    "57": AWAY,
    "58": BROKEN,
    "XX001": DAMAGED,
    "XX002": DAMAGED,
}

log = logging.getLogger(__name__)


def trouble_of(error: Exception) -> str | None:
    """Why the database cannot be used, in a sentence fit for whoever asked, where that is what `error` says; None where
    it is another error."""
    if isinstance(error, PoolTimeout):
        return AWAY
    if not isinstance(error, DBAPIError):
        return None
    if (code := getattr(error.orig, "sqlite_errorcode", None)) is not None:
        return SQLITE.get(code & 0xFF)
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return SQLSTATES.get(state) or SQLSTATES.get(state[:2])
    return AWAY if type(error.orig).__name__ == "OperationalError" else None  # psycopg's, without a connection


def reason_of(error: Exception) -> BaseException:
    """The error of the database's driver that is behind an error of the store, where there is one; else the error
    itself."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


class Outage:
    """Whether a database can be used, by what the last transactions came to. `monotonic` gives seconds by a clock that
    does not jump."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lock, self._monotonic = threading.Lock(), monotonic
        self._trouble: str | None = None
        self._of_writing = False
        self._since = 0.0

    @property
    def trouble(self) -> str | None:
        """Why the database cannot be used at present, in a sentence; None where it can, as far as known."""
        return self._trouble

    def failed(self, error: SQLAlchemyError, *, writing: bool) -> None:
        """Note that a transaction failed; an error that is no outage is passed over."""
        trouble = trouble_of(error)
        if trouble is None:
            return
        with self._lock:
            began, self._trouble, self._of_writing = self._trouble is None, trouble, self._of_writing or writing
            if began:
                self._since = self._monotonic()
                log.error("%s (%s); what needs it waits", trouble, " ".join(str(reason_of(error)).split()))

    def succeeded(self, *, writing: bool) -> None:
        """Note that a transaction succeeded. One that only read does not say that writing is possible again."""
        if self._trouble is None:
            return
        with self._lock:
            if self._trouble is not None and (writing or not self._of_writing):
                log.warning("the database can be used again, after %.0f s", self._monotonic() - self._since)
                self._trouble, self._of_writing = None, False
