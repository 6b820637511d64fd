"""The database: engine, session scope, and the one place that commits.

`Store.write()` is one transaction: committed when its block ends, rolled back when it raises. Writers exclude each
other per job (row lock on PostgreSQL, BEGIN IMMEDIATE on SQLite).
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.store.outage import Outage, reason_of, trouble_of

__all__ = ["DatabaseError", "Session", "Store", "reason_of", "trouble_of"]

# By these names whoever calls the store knows SQLAlchemy; nobody else imports it. A Session is the handle of a
# transaction: use cases hand it on to the functions of the store, and do nothing else with it.
DatabaseError = SQLAlchemyError  # whatever went wrong with a database

# How long a transaction waits for whatever is in its way. Whoever is behind it has other ways to wait, and is told why.
PATIENCE_S = 5
POSTGRESQL = {
    "connect_timeout": PATIENCE_S,
    "tcp_user_timeout": 2_000 * PATIENCE_S,  # a server that acknowledges nothing for so long is gone
    "options": f"-c lock_timeout={PATIENCE_S}s",
}


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
        self._engine = _engine(parsed)
        self._writer = self._engine.execution_options(forerun_write=True)
        self._check: Callable[[Session], None] | None = None
        self._outage = Outage()  # of all copies
        self._probes = secrets.randbelow(2**31)

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

    @property
    def trouble(self) -> str | None:
        """Why the database cannot be used at present, in a sentence; None where it can, as far as known by the last
        transactions."""
        return self._outage.trouble

    def try_to_write(self) -> None:
        """Write something that nobody reads, and commit. Raises DatabaseError where that is not possible."""
        statement = "UPDATE alembic_version SET version_num = version_num"
        if self.file is not None:  # SQLite writes no page that stays as it is
            self._probes += 1
            statement = f"PRAGMA user_version = {self._probes % 2**31}"
        with self._noticed(writing=True), Session(self._writer) as session, session.begin():
            session.execute(text(statement))

    def connect(self) -> Connection:
        """A connection of SQLAlchemy whose transactions write: on SQLite they take the lock as they begin."""
        return self._writer.connect()

    def connect_to_read(self) -> Connection:
        """A connection of SQLAlchemy whose transactions only read."""
        return self._engine.connect()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for one transaction that only reads."""
        with self._noticed(writing=False), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session for one transaction that writes: committed when the block ends, rolled back when it raises."""
        with ExitStack() as stack:
            stack.enter_context(self._noticed(writing=True))
            session = stack.enter_context(Session(self._writer, expire_on_commit=False))
            stack.enter_context(session.begin())
            if self._check is not None:
                self._check(session)
            yield session

    @contextmanager
    def _noticed(self, *, writing: bool) -> Iterator[None]:
        """Notice by what becomes of the block whether the database can be used."""
        try:
            yield
        except SQLAlchemyError as error:
            self._outage.failed(error, writing=writing)
            raise
        self._outage.succeeded(writing=writing)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        options = {name: value for name, value in POSTGRESQL.items() if name not in url.query}
        return create_engine(url, pool_pre_ping=True, pool_timeout=PATIENCE_S, connect_args=options)
    engine = create_engine(url, max_overflow=-1)  # who waits for the lock must not keep readers from connecting

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(PATIENCE_S * 1000)}")
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
