"""The database: engine, session scope, and the one place that commits.

`Store.write()` is one transaction: committed when its block ends, rolled back when it raises. Writers exclude each
other per job (row lock on PostgreSQL, BEGIN IMMEDIATE on SQLite).
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import from_json
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.store.outage import Outage, reason_of, trouble_of
from service.store.ownership import OWNER, SessionOfOwner
from service.store.turns import Turns

__all__ = ["DatabaseError", "Session", "Store", "after_commit", "reason_of", "trouble_of"]

# By these names whoever calls the store knows SQLAlchemy; nobody else imports it. A Session is the handle of a
# transaction: use cases hand it on to the functions of the store, and do nothing else with it.
DatabaseError = SQLAlchemyError  # whatever went wrong with a database

# How long a transaction waits for whatever is in its way. Whoever is behind it has other ways to wait, and is told why.
PATIENCE_S = 5
# How many read at a time from SQLite, and how long others wait for them. They take turns at the interpreter anyway, at
# every row: where 20 threads do so, the slowest answer takes four times as long.
READERS, READERS_PATIENCE_S = 4, 0.5
POSTGRESQL = {
    "connect_timeout": PATIENCE_S,
    "tcp_user_timeout": 2_000 * PATIENCE_S,  # a server that acknowledges nothing for so long is gone
    "keepalives_idle": 60,  # seconds: most connections of the pool have nothing to do, and firewalls forget those
    "options": f"-c lock_timeout={PATIENCE_S}s",
}
# What comes back is kept: where many came at once, most of SQLAlchemy's own pool was closed again, and made anew.
POOL: dict[str, Any] = {"pool_size": 15, "max_overflow": 0, "pool_timeout": PATIENCE_S, "pool_pre_ping": True}
OPTIONS: dict[str, Any] = {
    "json_deserializer": from_json,  # twice as fast as json's: a page of jobs has 50 specs
    "pool_use_lifo": True,  # the connection that was used last has its statements prepared, and its pages at hand
}

T = TypeVar("T")


class Store:
    """A database by its SQLAlchemy URL, which hands out sessions to read, and sessions to write in one transaction.

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
        self._writing, self._reading = Turns(1, PATIENCE_S), Turns(READERS, READERS_PATIENCE_S)
        self._writer = self._engine.execution_options(forerun_write=True)
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        # On PostgreSQL each statement sees what is committed as it begins, in a transaction or not; without one it
        # needs neither BEGIN nor ROLLBACK, which each take as long on the way as itself.
        self._reader = self._engine if self._is_sqlite else self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._check: Callable[[Session], None] | None = None
        self._session, self._info = Session, dict[str, Any]()
        self._outage = Outage()  # of all copies
        self._probes = secrets.randbelow(2**31)

    def guarded(self, check: Callable[[Session], None]) -> "Store":
        """The same database, where every transaction that writes begins with `check` and changes nothing if that
        raises."""
        store = copy(self)
        store._check = check
        return store

    def of_owner(self, owner: str | None, *, all_jobs: bool) -> "Store":
        """The same database in the hands of `owner`: jobs that are made are theirs, and unless `all_jobs` is set, those
        of others are not there."""
        store = copy(self)
        store._session, store._info = Session if all_jobs else SessionOfOwner, {OWNER: owner}
        return store

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database, links resolved; None for another database."""
        if self.url.get_backend_name() != "sqlite" or not self.url.database:
            return None
        return Path(self.url.database).resolve()

    @contextmanager
    def watched(self, begin: Callable[[str], T], end: Callable[[T, BaseException | None], object]) -> Iterator[None]:
        """Until the block ends have `begin` called with the text of every statement before it is run, without its
        values, and `end` afterwards with what `begin` returned, and the error where there was one."""
        begun: dict[int, T] = {}

        def before(_: object, __: object, statement: str, ___: object, context: object, ____: object) -> None:
            begun[id(context)] = begin(statement)

        def after(_: object, __: object, ___: object, ____: object, context: object, _____: object) -> None:
            end(begun.pop(id(context)), None)

        def failed(context: ExceptionContext) -> None:
            if id(context.execution_context) in begun:
                end(begun.pop(id(context.execution_context)), context.original_exception)

        listeners: dict[str, Callable[..., Any]] = {
            "before_cursor_execute": before,
            "after_cursor_execute": after,
            "handle_error": failed,
        }
        for name, listener in listeners.items():
            event.listen(self._engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                event.remove(self._engine, name, listener)

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
        with self._noticed(writing=True), self._turn(self._writing), Session(self._writer) as session, session.begin():
            session.execute(text(statement))

    def connect(self) -> Connection:
        """A connection of SQLAlchemy whose transactions write: on SQLite they take the lock as they begin."""
        return self._writer.connect()

    def connect_to_read(self) -> Connection:
        """A connection of SQLAlchemy whose transactions only read."""
        return self._engine.connect()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads, and locks nothing: on SQLite in one transaction, on PostgreSQL without one, where
        what writes would be committed at once."""
        with (
            self._noticed(writing=False),
            self._turn(self._reading),
            self._session(self._reader, expire_on_commit=False, info=self._info) as session,
        ):
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session for one transaction that writes: committed when the block ends, rolled back when it raises."""
        with (
            self._noticed(writing=True),
            self._turn(self._writing),
            self._session(self._writer, expire_on_commit=False, info=self._info) as session,
            session.begin(),
        ):
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

    def _turn(self, among: Turns) -> AbstractContextManager[None]:
        """A turn of this process, where the database is SQLite. Of writers that has those who wait for its lock try
        again now and then, and of twenty one may wait for seconds."""
        return among.turn() if self._is_sqlite else nullcontext()


def after_commit(session: Session, call: Callable[[], object]) -> None:
    """Have `call` called once the session's transaction is committed; where it is rolled back nobody calls it."""
    event.listen(session, "after_commit", lambda _: call(), once=True)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        options = {name: value for name, value in POSTGRESQL.items() if name not in url.query}
        return create_engine(url, **POOL, connect_args=options, **OPTIONS)
    # No bound on connections: who waits for the lock must not keep readers from connecting.
    engine = create_engine(url, max_overflow=-1, **OPTIONS)

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
