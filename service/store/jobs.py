"""Queries about jobs."""

import math
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from service.errors import NotFound
from service.spec.job import JobSpec
from service.store.pages import Page, decode_cursor, page_of
from service.store.tables import Job
from service.wire.states import TERMINAL, JobState


def job_spec(job: Job) -> JobSpec:
    """The spec that the job was accepted with, every default filled in."""
    return JobSpec.model_validate(job.spec)


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


def next_to_submit(session: Session, total_workers: float) -> Job | None:
    """The oldest job that waits for an attempt and fits the cluster, locked; jobs another holds are passed over."""
    query = select(Job).where(Job.state.in_([JobState.QUEUED, JobState.RECOVERING]))
    if total_workers != math.inf:
        query = query.where(Job.workers <= total_workers)
    return session.scalar(query.order_by(Job.number).limit(1).with_for_update(skip_locked=True))
