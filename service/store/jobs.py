"""Jobs in SQL with their attempts: queries, and the changes of where a job stands."""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, or_, select, update

from service.errors import NotFound
from service.spec.job import JobSpec
from service.store import records
from service.store.attempts import attempts_by_job
from service.store.engine import Session
from service.store.events import insert_event
from service.store.ownership import owner_of
from service.store.pages import Page, decode_cursor, page_of
from service.store.rows import columns_of, record_of
from service.store.tables import Job, Run, Trial
from service.wire.states import TERMINAL, JobState

STANDING = ("state", "attempt", "started_at", "finished_at", "error_code", "error_message")  # what changes of a job


def job_spec(job: records.Job) -> JobSpec:
    """The spec that the job was accepted with, every default filled in."""
    return JobSpec.model_validate(job.spec)


def get_job(session: Session, job_id: str, *, lock: bool = False) -> records.JobWithAttempts:
    """The job of that id with its attempts, its row locked if `lock`, for a caller that goes on to change it. Raises
    NotFound when the store has no job of that id."""
    query = _select_jobs().where(Job.id == job_id)
    row = session.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise _no_job(job_id)
    # read after the lock, by a statement of their own: a join would show them as they were before it was waited for
    return _with_attempts(row, attempts_by_job(session, Job.id == job_id))


def check_job(session: Session, job_id: str) -> None:
    """Raise NotFound when the store has no job of that id."""
    if session.scalar(select(Job.number).where(Job.id == job_id)) is None:
        raise _no_job(job_id)


def _no_job(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id}; GET /v1/jobs lists the jobs")


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


def live_jobs(session: Session) -> Sequence[records.JobWithAttempts]:
    """The jobs that are not in a terminal state, with their attempts, oldest first."""
    live = Job.state.not_in(TERMINAL)
    rows = session.execute(_select_jobs().where(live).order_by(Job.number)).all()
    attempts = attempts_by_job(session, live)
    return [_with_attempts(row, attempts) for row in rows]


def next_to_submit(session: Session, total_workers: float, owners_who_wait: Collection[str] = ()) -> records.Job | None:
    """The oldest job that waits for an attempt and takes at most `total_workers` workers, its row locked; None when
    there is none. Those of `owners_who_wait` are passed over, and on PostgreSQL jobs whose row another transaction
    holds."""
    query = _select_jobs().where(Job.state.in_([JobState.QUEUED, JobState.RECOVERING]))
    if total_workers != math.inf:
        query = query.where(Job.workers <= total_workers)
    if owners_who_wait:
        query = query.where(or_(Job.owner.is_(None), Job.owner.not_in(owners_who_wait)))
    query = query.order_by(Job.number).limit(1).with_for_update(skip_locked=True)
    row = session.execute(query).one_or_none()
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
    session: Session, job_id: str, spec: JobSpec, runs: Sequence[records.NewRun], created_at: datetime
) -> None:
    """Insert a job of the session's owner that waits for its first attempt, with its runs and the trials that these
    begin with."""
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
            created_at=created_at,
            attempt=0,
            last_event=0,
            owner=owner_of(session),
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
