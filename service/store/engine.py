"""The database: engine, session scope, queries, and the one place that commits; `store.queries` has more queries.

`Store.write()` is one transaction: committed when its block ends, rolled back when it raises. Writers exclude each
other per job (row lock on PostgreSQL, BEGIN IMMEDIATE on SQLite).
"""

import base64
import binascii
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, make_url, select, text, update
from sqlalchemy.orm import Session, selectinload

import migrations
from service.errors import FieldError, InvalidInput, NotFound
from service.store.tables import Attempt, Branch, Epoch, Event, IdempotencyKey, Job, Run, Trial
from service.wire.states import TERMINAL, JobState

BUSY_TIMEOUT_MS = 30_000
MIGRATION_LOCK = 0x464F5245  # any number that nobody else takes: "FORE"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Items in the order of their query; `next_cursor` is None on the last page."""

    items: Sequence[Item]
    next_cursor: str | None


class Store:
    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.url = parsed
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        self._engine = _engine(parsed.render_as_string(hide_password=False))
        self._writer = self._engine.execution_options(forerun_write=True)

    def migrate(self) -> None:
        """Bring the schema to the newest revision."""
        config = _alembic_config()
        with self.connect() as connection:
            if connection.dialect.name == "postgresql":  # of two services that start at once, one waits for the other
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()

    def is_current(self) -> bool:
        """Whether the schema is at the newest revision."""
        with self._engine.connect() as connection:  # not by Alembic: it would log two lines, and this is asked often
            migrated = inspect(connection).has_table("alembic_version")
            revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if migrated else None
        return revision == ScriptDirectory.from_config(_alembic_config()).get_current_head()

    def close(self) -> None:
        self._engine.dispose()

    def connect(self) -> Connection:
        return self._writer.connect()

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


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


# --- queries ---------------------------------------------------------------------------------------


def get_job(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """The job, its row locked when the caller goes on to change it. Raises NotFound."""
    query = select(Job).where(Job.id == job_id)
    job = session.scalar(query.with_for_update() if lock else query.options(selectinload(Job.attempts)))
    if job is None:
        raise NotFound(f"there is no job {job_id}; GET /v1/jobs lists the jobs")
    return job


def list_jobs(
    session: Session,
    *,
    state: Sequence[JobState] = (),
    model: str | None = None,
    dataset: str | None = None,
    name: str | None = None,
    experiment: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page[Job]:
    """Newest first."""
    query = select(Job).options(selectinload(Job.attempts)).order_by(Job.number.desc()).limit(limit + 1)
    if state:
        query = query.where(Job.state.in_(state))
    wanted = [(Job.model, model), (Job.dataset, dataset), (Job.name, name), (Job.experiment, experiment)]
    query = query.where(*(column == value for column, value in wanted if value is not None))
    if cursor is not None:
        query = query.where(Job.number < decode_cursor(cursor, 1)[0])
    return page_of(session.scalars(query).all(), limit, lambda job: (job.number,))


def jobs_of_experiment(session: Session, experiment: str) -> Sequence[Job]:
    """Oldest first."""
    return session.scalars(select(Job).where(Job.experiment == experiment).order_by(Job.number)).all()


def lock_experiment(session: Session, experiment: str) -> None:
    """Of two transactions that submit it at once, the second waits for the first, as on SQLite every writer does."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(experiment, 0))))


def live_jobs(session: Session) -> Sequence[Job]:
    """Jobs that are not in a terminal state, oldest first."""
    query = select(Job).options(selectinload(Job.attempts)).where(Job.state.not_in(TERMINAL)).order_by(Job.number)
    return session.scalars(query).all()


def ended_submissions(session: Session, submission_ids: Sequence[str], before: datetime) -> Sequence[str]:
    """Those of the ids that are attempts of this service and ended before that time."""
    query = select(Attempt.submission_id).where(Attempt.submission_id.in_(submission_ids), Attempt.ended_at < before)
    return session.scalars(query).all()


def attempts_without_log(session: Session) -> Sequence[str]:
    """Submissions of attempts that have ended, and whose log is not kept yet."""
    query = select(Attempt.submission_id).where(Attempt.ended_at.is_not(None), Attempt.log.is_(None))
    return session.scalars(query.order_by(Attempt.id)).all()


def get_log(session: Session, job_id: str, attempt: int) -> tuple[str, str | None]:
    """The attempt's submission id and the end of its log, None while it is not kept yet. Raises NotFound."""
    query = select(Attempt.submission_id, Attempt.log).where(Attempt.job_id == job_id, Attempt.number == attempt)
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"job {job_id} has no attempt {attempt}; GET /v1/jobs/{job_id} has the number of the newest")
    return row.submission_id, row.log


def last_attempt_with_epoch(session: Session, job_id: str) -> int:
    """Number of the newest attempt that recorded an epoch; 0: none did."""
    query = select(func.max(Epoch.attempt)).join(Trial).join(Run).where(Run.job_id == job_id)
    return session.scalar(query) or 0


def next_to_submit(session: Session, total_workers: float) -> Job | None:
    """The oldest job that waits for an attempt and fits the cluster, locked; jobs another holds are passed over."""
    query = select(Job).where(Job.state.in_([JobState.QUEUED, JobState.RECOVERING]))
    if total_workers != math.inf:
        query = query.where(Job.workers <= total_workers)
    return session.scalar(query.order_by(Job.number).limit(1).with_for_update(skip_locked=True))


def get_trial(session: Session, job_id: str, method: str, number: int) -> Trial | None:
    query = select(Trial).join(Run).where(Run.job_id == job_id, Run.method == method, Trial.number == number)
    return session.scalar(query)


def get_run(session: Session, job_id: str, method: str) -> Run | None:
    return session.scalar(select(Run).where(Run.job_id == job_id, Run.method == method))


def stop_trials(session: Session, job_id: str) -> None:
    """A job ends: what has not ended of it stops."""
    runs = select(Run.id).where(Run.job_id == job_id).scalar_subquery()
    open_ = Trial.state.in_(["pending", "running"])
    session.execute(update(Trial).where(Trial.run_id.in_(runs), open_).values(state="stopped"))


def trials_with_cost(session: Session, job_id: str) -> Sequence[tuple[Run, Trial, int, int]]:
    """Every trial of a job with its run, its recorded epochs, and the training samples they took."""
    cost = (
        select(Epoch.trial_id, func.count().label("epochs"), func.sum(Epoch.samples).label("samples"))
        .group_by(Epoch.trial_id)
        .subquery()
    )
    query = (
        select(Run, Trial, func.coalesce(cost.c.epochs, 0), func.coalesce(cost.c.samples, 0))
        .join(Trial, Trial.run_id == Run.id)
        .outerjoin(cost, cost.c.trial_id == Trial.id)
        .where(Run.job_id == job_id)
        .order_by(Run.id, Trial.number)
    )
    return [(run, trial, int(epochs), int(samples)) for run, trial, epochs, samples in session.execute(query)]


def trials_of(session: Session, job_id: str) -> Sequence[tuple[Run, Trial]]:
    """Every trial of a job with its run, in the order in which they train."""
    query = select(Run, Trial).join(Trial).where(Run.job_id == job_id).order_by(Run.id, Trial.number)
    return [(run, trial) for run, trial in session.execute(query)]


def get_epoch(session: Session, trial_id: int, epoch: int) -> Epoch | None:
    return session.scalar(select(Epoch).where(Epoch.trial_id == trial_id, Epoch.epoch == epoch))


def last_epoch(session: Session, trial_id: int) -> int:
    return (
        session.scalar(select(Epoch.epoch).where(Epoch.trial_id == trial_id).order_by(Epoch.epoch.desc()).limit(1)) or 0
    )


def epochs_of(session: Session, job_id: str, *, method: str | None = None, trial: int | None = None) -> Sequence[Epoch]:
    """Epochs of a job with their branches, by run, trial and epoch."""
    query = (
        select(Epoch)
        .join(Trial)
        .join(Run)
        .where(Run.job_id == job_id)
        .options(selectinload(Epoch.branches), selectinload(Epoch.trial).selectinload(Trial.run))
        .order_by(Run.id, Trial.number, Epoch.epoch)
    )
    wanted = [(Run.method, method), (Trial.number, trial)]
    query = query.where(*(column == value for column, value in wanted if value is not None))
    return session.scalars(query).all()


def epochs_of_trial(session: Session, trial_id: int) -> Sequence[Epoch]:
    return session.scalars(select(Epoch).where(Epoch.trial_id == trial_id).order_by(Epoch.epoch)).all()


def branches_of(session: Session, job_id: str, epoch: int | None = None) -> Sequence[Branch]:
    query = (
        select(Branch)
        .join(Epoch)
        .join(Trial)
        .join(Run)
        .where(Run.job_id == job_id)
        .options(selectinload(Branch.epoch_row).selectinload(Epoch.trial).selectinload(Trial.run))
        .order_by(Run.id, Trial.number, Epoch.epoch, Branch.number)
    )
    return session.scalars(query if epoch is None else query.where(Epoch.epoch == epoch)).all()


def latest_epochs(session: Session, job_ids: Sequence[str]) -> dict[str, Epoch]:
    """The newest epoch of the first trial of each job's first run, by job id."""
    first = select(func.min(Run.id)).where(Run.job_id.in_(job_ids)).group_by(Run.job_id)
    last = (
        select(Run.job_id, Epoch.trial_id, func.max(Epoch.epoch).label("epoch"))
        .join(Trial, Trial.id == Epoch.trial_id)
        .join(Run, Run.id == Trial.run_id)
        .where(Run.id.in_(first), Trial.number == 1)
        .group_by(Run.job_id, Epoch.trial_id)
        .subquery()
    )
    same = (Epoch.trial_id == last.c.trial_id) & (Epoch.epoch == last.c.epoch)
    return {row[0]: row[1] for row in session.execute(select(last.c.job_id, Epoch).join(last, same))}


def events_after(session: Session, job_id: str, number: int, limit: int = 500) -> Sequence[Event]:
    query = select(Event).where(Event.job_id == job_id, Event.number > number).order_by(Event.number).limit(limit)
    return session.scalars(query).all()


def get_idempotency_key(session: Session, key: str) -> IdempotencyKey | None:
    return session.get(IdempotencyKey, key)


def page_of(rows: Sequence[Item], limit: int, place: Callable[[Item], Sequence[int]]) -> Page[Item]:
    """Of `limit` + 1 rows at most: one too many tells that there is another page. `place`: the numbers of a row's
    cursor."""
    return Page(rows[:limit], encode_cursor(*place(rows[limit - 1])) if len(rows) > limit else None)


def encode_cursor(*numbers: int) -> str:
    return base64.urlsafe_b64encode(".".join(map(str, numbers)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> list[int]:
    """The `length` numbers of a cursor: ids and numbers, all from 1. Raises InvalidInput."""
    try:
        numbers = [int(part) for part in base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).split(b".")]
        if len(numbers) != length or not all(0 < number < 2**63 for number in numbers):
            raise ValueError
        return numbers
    except (ValueError, binascii.Error):
        message = "not a cursor of this list; take next_cursor of the page before, or leave it out"
        raise InvalidInput([FieldError("cursor", cursor, message)]) from None
