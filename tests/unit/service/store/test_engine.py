"""What is SQLite's alone, and what needs no database. The rest of the store: tests/integration."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import OperationalError

from migrations import is_current, migrate
from service.errors import StateConflict
from service.jobs import lifecycle as jobs
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.store import engine as store
from service.store.engine import Store
from service.store.jobs import get_job, set_terms
from service.store.keys import get_idempotency_key, insert_idempotency_key
from service.store.shown import list_jobs
from service.store.tables import Job
from service.wire.states import JobState
from tests.unit.service.specs import small

pytest_plugins = ["tests.databases"]

SPEC = JobSpec.model_validate(small())


@pytest.fixture
def impatient(sqlite_store, monkeypatch):
    """Another process on the same file, which would rather fail than wait."""
    monkeypatch.setattr(store, "PATIENCE_S", 0)
    other = Store(sqlite_store.url.render_as_string())
    assert is_current(other)  # connects now, with that timeout
    monkeypatch.undo()
    yield other
    other.close()


def test_every_connection_is_set_up(sqlite_store):
    pragmas = ("foreign_keys", "journal_mode", "busy_timeout", "synchronous")
    with ExitStack() as stack:
        sessions = [stack.enter_context(sqlite_store.read()) for _ in range(3)]  # three connections
        for session in sessions:
            values = [session.scalar(text(f"PRAGMA {name}")) for name in pragmas]
            assert values == [1, "wal", 5_000, 2]  # 2: FULL


def test_a_writer_holds_the_lock_from_its_first_statement(sqlite_store, impatient):
    submit_job(sqlite_store, SPEC)
    with sqlite_store.write() as session:
        session.scalars(select(Job)).all()  # has only read so far
        with pytest.raises(OperationalError, match="database is locked"):
            jobs.claim_next(impatient)
    assert jobs.claim_next(impatient) is not None


def test_a_migration_holds_the_lock_too(sqlite_store, impatient):
    with sqlite_store.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(OperationalError, match="database is locked"):
            migrate(impatient)
    migrate(impatient)


def test_readers_neither_wait_nor_see_half_a_transaction(sqlite_store, impatient):
    job_id, _ = submit_job(sqlite_store, SPEC)
    with impatient.read() as reader:
        assert get_job(reader, job_id).state == "queued"
        jobs.claim_next(sqlite_store)  # nor do they keep a writer waiting
        with sqlite_store.write() as session:
            session.execute(update(Job).values(name="changed"))
            with impatient.read() as second:
                assert (get_job(second, job_id).state, get_job(second, job_id).name) == ("submitting", "")
        assert get_job(reader, job_id).state == "queued"  # what was true when it began to read
    with impatient.read() as third:
        assert get_job(third, job_id).name == "changed"


def test_a_second_writer_waits_and_sees_what_the_first_wrote(sqlite_store):
    job_id, _ = submit_job(sqlite_store, SPEC)
    second = Store(sqlite_store.url.render_as_string())
    asks = threading.Event()

    def about_to(connection, cursor, statement, *_):
        if statement == "BEGIN IMMEDIATE":
            asks.set()

    event.listen(second._engine, "before_cursor_execute", about_to)
    with ThreadPoolExecutor(1) as pool:
        with sqlite_store.write() as session:
            get_job(session, job_id, lock=True)
            cancelled = pool.submit(jobs.cancel, second, job_id)
            assert asks.wait(30)
            session.execute(update(Job).values(state=JobState.FAILED))
        with pytest.raises(StateConflict, match="has failed already"):
            cancelled.result(30)
    second.close()


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@db:5433/forerun", "postgresql+psycopg://me:secret@db:5433/forerun"]
)
def test_postgresql_is_spoken_through_psycopg_3(url):
    store = Store(url)
    assert store.url.drivername == "postgresql+psycopg"
    assert store._engine.dialect.driver == "psycopg"
    assert (store._engine.url.host, store._engine.url.port, store._engine.url.password) == ("db", 5433, "secret")
    assert "secret" not in str(store.url)


def test_the_folder_of_a_sqlite_file_is_made(tmp_path: Path):
    path = tmp_path / "new" / "home" / "forerun.db"
    store = Store(f"sqlite:///{path}")
    migrate(store)
    store.close()
    assert path.is_file()


def test_a_database_that_does_not_answer_is_not_taken_for_an_old_one(tmp_path: Path):
    unreachable = Store(f"postgresql://nobody@/nothing?host={tmp_path}")
    with pytest.raises(OperationalError):
        is_current(unreachable)
    unreachable.close()


def test_a_cursor_is_text_that_a_url_can_carry(sqlite_store):
    for _ in range(2):
        submit_job(sqlite_store, SPEC)
    with sqlite_store.read() as session:
        cursor = list_jobs(session, limit=1).next_cursor
    assert cursor is not None
    assert cursor.replace("-", "").replace("_", "").isalnum()


def test_writers_of_one_process_take_turns_instead_of_trying_again(sqlite_store):
    """SQLite here refuses at once whoever comes while another writes."""
    event.listen(sqlite_store._engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=0"))
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait(30)
        with sqlite_store.write() as session:
            insert_idempotency_key(session, f"{number}", fingerprint="f", job_id=job_id, created_at=datetime.now(UTC))

    job_id, _ = submit_job(sqlite_store, SPEC)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with sqlite_store.read() as session:
        assert all(get_idempotency_key(session, f"{number}") for number in range(8))


def test_postgresql_a_writer_has_a_transaction_behind_a_reader_without_one(postgres_store):
    """On the same connection: the pool hands out the one that was used last."""
    connections = []
    event.listen(postgres_store._engine, "checkout", lambda connection, *_: connections.append(connection))
    job_id, _ = submit_job(postgres_store, SPEC)

    def change_and_fail() -> None:
        with postgres_store.write() as session:
            set_terms(session, job_id, {"priority": 7})
            raise RuntimeError("power cut")

    for _ in range(2):
        with postgres_store.read() as session:
            assert get_job(session, job_id).priority == 0
        with pytest.raises(RuntimeError, match="power cut"):
            change_and_fail()
    assert len(set(connections)) == 1
