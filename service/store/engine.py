"""The database: engine, session scope, and the one place that commits.

`Store.write()` is one transaction: committed when its block ends, rolled back when it raises. Writers exclude each
other per job (row lock on PostgreSQL, BEGIN IMMEDIATE on SQLite).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

__all__ = ["DatabaseError", "Session", "Store", "reason_of"]

# By these names whoever calls the store knows SQLAlchemy; nobody else imports it. A Session is the handle of a
# transaction: use cases hand it on to the functions of the store, and do nothing else with it.
DatabaseError = SQLAlchemyError  # whatever went wrong with a database

BUSY_TIMEOUT_MS = 30_000


class Store:
    """A database by its SQLAlchemy URL, which hands out sessions to read and to write, one transaction each.

    The folder of an SQLite file is made where it is absent. Raises DatabaseError for a URL that means no database.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.url = parsed
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        self._engine = _engine(parsed.render_as_string(hide_password=False))
        self._writer = self._engine.execution_options(forerun_write=True)
        self._check: Callable[[Session], None] | None = None

    def guarded(self, check: Callable[[Session], None]) -> "Store":
        """The same database, where every transaction that writes begins with `check` and changes nothing if that
        raises."""
        store = copy(self)
        store._check = check
        return store

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database, links resolved; None for another database."""
        if self.url.get_backend_name() != "sqlite" or not self.url.database:
            return None
        return Path(self.url.database).resolve()

    def close(self) -> None:
        """Close the connections that nobody uses any more."""
        self._engine.dispose()

    def connect(self) -> Connection:
        """A connection of SQLAlchemy whose transactions write: on SQLite they take the lock as they begin."""
        return self._writer.connect()

    def connect_to_read(self) -> Connection:
        """A connection of SQLAlchemy whose transactions only read."""
        return self._engine.connect()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for one transaction that only reads."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session for one transaction that writes: committed when the block ends, rolled back when it raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            if self._check is not None:
                self._check(session)
            yield session


def reason_of(error: Exception) -> BaseException:
    """The error of the database's driver that is behind an error of the store, where there is one; else the error
    itself."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # an accepted job survives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes its lock at once: a deferred one may find that another wrote in between, and fail.
        write = connection.get_execution_options().get("forerun_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
