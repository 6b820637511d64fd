"""Jobs in SQL with their attempts: queries, and the changes of where a job stands."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select, update

from service.errors import NotFound
from service.spec.job import JobSpec
from service.store import records
from service.store.attempts import attempts_by_job
from service.store.engine import Session
from service.store.events import insert_event
from service.store.pages import Page, decode_cursor, page_of
from service.store.queue import ORDER, waits
from service.store.rows import columns_of, record_of
from service.store.tables import Job, Run, Trial
from service.wire.states import JobState

# what changes of a job
STANDING = ("state", "attempt", "started_at", "finished_at", "not_before", "error_code", "error_message")


def job_spec(job: records.Job) -> JobSpec:
    """The spec that the job was accepted with, every default filled in."""
    return JobSpec.model_validate(job.spec)


def get_job(session: Session, job_id: str, *, lock: bool = False) -> records.JobWithAttempts:
    """The job of that id with its attempts, its row locked if `lock`, for a caller that goes on to change it. Raises
    NotFound when the store has no job of that id."""
    query = _select_jobs().where(Job.id == job_id)
    row = session.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id}; GET /v1/jobs lists the jobs")
    # read after the lock, by a statement of their own: a join would show them as they were before it was waited for
    return _with_attempts(row, attempts_by_job(session, Job.id == job_id))


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
) -> Page[records.JobWithAttempts]:
    """A page of at most `limit` jobs that the filters fit, with their attempts, newest first. Raises InvalidInput when
    `cursor` is none of this list."""
    query = _select_jobs().order_by(Job.number.desc()).limit(limit + 1)
    if state:
        query = query.where(Job.state.in_(state))
    wanted = [(Job.model, model), (Job.dataset, dataset), (Job.name, name), (Job.experiment, experiment)]
    query = query.where(*(column == value for column, value in wanted if value is not None))
    if cursor is not None:
        query = query.where(Job.number < decode_cursor(cursor, 1)[0])
    page = page_of(session.execute(query).all(), limit, lambda row: (row.number,))
    attempts = attempts_by_job(session, Job.id.in_([row.id for row in page.items]))
    return Page([_with_attempts(row, attempts) for row in page.items], page.next_cursor)


def jobs_of_experiment(session: Session, experiment: str) -> Sequence[records.Job]:
    """The jobs whose spec names that experiment, oldest first."""
    rows = session.execute(_select_jobs().where(Job.experiment == experiment).order_by(Job.number))
    return [_job(row) for row in rows]


def jobs_in(session: Session, states: Collection[JobState]) -> Sequence[records.JobWithAttempts]:
    """The jobs in one of `states`, with their attempts, oldest first."""
    wanted = Job.state.in_(states)
    rows = session.execute(_select_jobs().where(wanted).order_by(Job.number)).all()
    attempts = attempts_by_job(session, wanted) if rows else {}
    return [_with_attempts(row, attempts) for row in rows]


def workers_of(session: Session, states: Collection[JobState]) -> int:
    """How many workers the jobs in one of `states` ask for in all."""
    return session.scalar(select(func.sum(Job.workers)).where(Job.state.in_(states))) or 0


def next_to_submit(session: Session, total_workers: float, *, lock: bool = True) -> records.Job | None:
    """The next job that waits for an attempt, may have one by the database's clock, and takes at most `total_workers`
    workers: the oldest of those with the highest priority; its row locked, if `lock`. None when there is none. On
    PostgreSQL jobs whose row another transaction holds are passed over."""
    query = _select_jobs().where(waits(session, total_workers)).order_by(*ORDER).limit(1)
    row = session.execute(query.with_for_update(skip_locked=True) if lock else query).one_or_none()
    return None if row is None else _job(row)


def _select_jobs() -> Select[*tuple[Any, ...]]:
    return select(*columns_of(Job, records.Job))


def _job(row: Row[*tuple[Any, ...]]) -> records.Job:
    return record_of(records.Job, row, state=JobState(row.state))


def _with_attempts(
    row: Row[*tuple[Any, ...]], attempts: Mapping[str, Sequence[records.Attempt]]
) -> records.JobWithAttempts:
    its = tuple(attempts.get(row.id, ()))
    return record_of(records.JobWithAttempts, row, state=JobState(row.state), attempts=its)


# --- changes ---------------------------------------------------------------------------------------------


def lock_experiment(session: Session, experiment: str) -> None:
    """Lock the name of an experiment until the transaction ends: of two that submit it at once the second waits for the
    first, as on SQLite every writer does anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(experiment, 0))))


def insert_job(
    session: Session,
    job_id: str,
    spec: JobSpec,
    runs: Sequence[records.NewRun],
    created_at: datetime,
    *,
    priority: int = 0,
    time_limit: int | None = None,
    retry_of: str | None = None,
) -> None:
    """Insert a job that waits for its first attempt, with its runs and the trials that these begin with."""
    session.add(
        Job(
            id=job_id,
            name=spec.name,
            experiment=spec.experiment,
            model=spec.model,
            dataset=spec.dataset.name,
            workers=spec.workers,
            optimizer=spec.optimizer.name,
            global_batch_size=spec.global_batch_size,
            trials=sum(len(run.seeds) for run in runs),
            spec=spec.model_dump(mode="json"),
            state=JobState.QUEUED,
            priority=priority,
            time_limit=time_limit,
            retry_of=retry_of,
            created_at=created_at,
            attempt=0,
            last_event=0,
            runs=[
                Run(
                    label=run.label,
                    method=run.method,
                    trials=[
                        Trial(number=number, seed=seed, length=run.length)
                        for number, seed in enumerate(run.seeds, start=1)
                    ],
                )
                for run in runs
            ],
        )
    )
    session.flush()


def set_terms(session: Session, job_id: str, changes: Mapping[str, int | None]) -> None:
    """Write other terms of a job: of `priority` and `time_limit` those that `changes` names."""
    assert changes.keys() <= {"priority", "time_limit"}
    if changes:
        session.execute(update(Job).where(Job.id == job_id).values(dict(changes)))


def set_job_state(
    session: Session, job: records.Job, *, before: JobState, event: Mapping[str, Any], created_at: datetime
) -> None:
    """Write where a job stands now (its state, attempt, times and error) and the event that tells of it.

    The job must be in the state `before`, as it is where its row was locked to read it; else an assertion fails.
    """
    moved = (
        update(Job)
        .where(Job.id == job.id, Job.state == before)
        .values({name: getattr(job, name) for name in STANDING} | {"last_event": Job.last_event + 1})
        .returning(Job.last_event)
    )
    number = session.scalars(moved).one_or_none()
    assert number is not None, f"{job.id} is not {before} any more"
    insert_event(session, job.id, number, "state", event, created_at)
