"""Which errors of a database say that it cannot be used at present, and how often that is told."""

import logging
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.store import engine
from service.store.engine import DatabaseError, Store
from service.store.outage import AWAY, BROKEN, DAMAGED, FULL, LOCKED, READ_ONLY, Outage, trouble_of
from tests.databases import Postgres
from tests.disks import fill

pytest_plugins = ["tests.databases", "tests.disks"]

LOGGER = "service.store.outage"


def sqlite_error(code: int) -> DBAPIError:
    error = sqlite3.OperationalError("some words")
    error.sqlite_errorcode = code
    return OperationalError("SELECT 1", {}, error)


def postgres_error(kind: type[psycopg.Error]) -> DBAPIError:
    return DBAPIError.instance("SELECT 1", {}, kind("some words"), psycopg.Error)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (sqlite_error(sqlite3.SQLITE_BUSY), LOCKED),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), LOCKED),
        (sqlite_error(sqlite3.SQLITE_FULL), FULL),
        (sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE), BROKEN),
        (sqlite_error(sqlite3.SQLITE_CANTOPEN), BROKEN),
        (sqlite_error(sqlite3.SQLITE_CORRUPT), DAMAGED),
        (sqlite_error(sqlite3.SQLITE_NOTADB), DAMAGED),
        (sqlite_error(sqlite3.SQLITE_READONLY), READ_ONLY),
        (sqlite_error(sqlite3.SQLITE_ERROR), None),
        (sqlite_error(sqlite3.SQLITE_CONSTRAINT), None),
        (postgres_error(psycopg.OperationalError), AWAY),  # no connection: no SQLSTATE
        (postgres_error(pg.AdminShutdown), AWAY),
        (postgres_error(pg.TooManyConnections), AWAY),
        (postgres_error(pg.DiskFull), FULL),
        (postgres_error(pg.LockNotAvailable), LOCKED),
        (postgres_error(pg.DeadlockDetected), LOCKED),
        (postgres_error(pg.ReadOnlySqlTransaction), READ_ONLY),
        (postgres_error(pg.IoError), BROKEN),
        (postgres_error(pg.DataCorrupted), DAMAGED),
        (postgres_error(pg.UniqueViolation), None),
        (postgres_error(pg.UndefinedTable), None),
        (PoolTimeout("QueuePool limit"), AWAY),
        (IntegrityError("INSERT", {}, Exception()), None),
        (ProgrammingError("SELECT", {}, Exception()), None),
        (InterfaceError("SELECT", {}, Exception()), None),
        (ValueError(), None),
    ],
)
def test_an_outage_is_told_from_a_mistake(error: Exception, trouble: str | None) -> None:
    assert trouble_of(error) == trouble


def test_an_outage_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    outage = Outage(lambda: now)
    with caplog.at_level(logging.INFO, logger=LOGGER):
        outage.succeeded(writing=True)
        outage.failed(sqlite_error(sqlite3.SQLITE_FULL), writing=True)
        outage.failed(sqlite_error(sqlite3.SQLITE_FULL), writing=True)
        outage.succeeded(writing=False)  # reading goes on
        assert outage.trouble == FULL
        now = 142.0
        outage.succeeded(writing=True)
        assert outage.trouble is None
        outage.succeeded(writing=True)
        outage.failed(IntegrityError("INSERT", {}, Exception()), writing=True)
    assert caplog.messages == [
        "the disk of the database is full; make room there (some words); what needs it waits",
        "the database can be used again, after 42 s",
    ]


def test_reading_again_ends_what_began_with_reading() -> None:
    outage = Outage()
    outage.failed(postgres_error(pg.AdminShutdown), writing=False)
    outage.succeeded(writing=False)
    assert outage.trouble is None
    outage.failed(postgres_error(pg.AdminShutdown), writing=False)
    outage.failed(postgres_error(pg.AdminShutdown), writing=True)
    outage.succeeded(writing=False)
    assert outage.trouble == AWAY


# --- the real thing ----------------------------------------------------------------------------------------


def write(store: Store, value: str = "x") -> None:
    with store.write() as session:
        session.execute(text("UPDATE leader SET url = :url"), {"url": value})


def trouble_when_writing(store: Store, write: Any = write) -> str | None:
    with pytest.raises(DatabaseError) as caught:
        write(store)
    return trouble_of(caught.value)


def test_a_full_disk(small_disk: Path, sqlite_template: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(f"sqlite:///{shutil.copy(sqlite_template, small_disk / 'forerun.db')}")
    write(store)
    full = fill(small_disk)
    with caplog.at_level(logging.INFO, logger=LOGGER):
        assert trouble_when_writing(store, Store.try_to_write) == FULL
        with pytest.raises(DatabaseError):
            write(store, "y")
        with store.read() as session:
            assert session.scalar(text("SELECT url FROM leader")) == "x"
        assert store.trouble == FULL
        full.unlink()
        write(store, "y")
        assert store.trouble is None
        store.try_to_write()
    assert len(caplog.messages) == 2
    store.close()


def test_a_locked_file(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE_S", 0.01)
    impatient = Store(sqlite_store.url.render_as_string())
    with sqlite_store.write() as session:
        session.execute(text("SELECT 1 FROM leader"))
        assert trouble_when_writing(impatient) == LOCKED
        with impatient.read() as session:
            session.execute(text("SELECT 1 FROM leader"))
    write(impatient)
    impatient.close()


def test_a_damaged_file(sqlite_store: Store) -> None:
    assert sqlite_store.file is not None
    sqlite_store.close()
    sqlite_store.file.write_bytes(b"no database" * 1000)
    assert trouble_when_writing(sqlite_store) == DAMAGED


def test_a_server_that_is_stopped_and_started(postgres: Postgres, postgres_store: Store) -> None:
    write(postgres_store)
    with postgres.stopped():
        assert trouble_when_writing(postgres_store) == AWAY
        with pytest.raises(DatabaseError), postgres_store.read() as session:
            session.execute(text("SELECT 1"))
    assert postgres_store.trouble == AWAY
    write(postgres_store)
    assert postgres_store.trouble is None


def test_a_row_that_somebody_else_holds(postgres_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.POSTGRESQL, "options", "-c lock_timeout=10ms")
    impatient = Store(postgres_store.url.render_as_string(hide_password=False))
    with postgres_store.write() as session:
        session.execute(text("UPDATE leader SET url = 'z'"))
        assert trouble_when_writing(impatient) == LOCKED
    impatient.close()
