"""The end of jobs in SQL: their rows, the files that deleted jobs leave behind, and what retention takes away."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import aliased

from service.store.engine import Session
from service.store.tables import Attempt, DeletedJob, Job
from service.store.usage import keep_usage
from service.wire.states import TERMINAL


def was_deleted(session: Session, job_id: str) -> bool:
    """Whether a job of that id was deleted not long ago."""
    return session.scalar(select(DeletedJob.id).where(DeletedJob.id == job_id)) is not None


def may_still_run(session: Session, job_id: str) -> bool:
    """Whether an attempt of a job has no log yet: Ray has not confirmed its end."""
    without_log = select(Attempt.id).where(Attempt.job_id == job_id, Attempt.log.is_(None)).limit(1)
    return session.scalar(without_log) is not None


def deleted_jobs(session: Session, limit: int) -> Sequence[tuple[str, datetime]]:
    """The ids of jobs that were deleted, and when, oldest first."""
    query = select(DeletedJob.id, DeletedJob.deleted_at).order_by(DeletedJob.deleted_at, DeletedJob.id).limit(limit)
    return [(row.id, row.deleted_at) for row in session.execute(query)]


def jobs_with_files(session: Session, finished_before: datetime, limit: int) -> Sequence[str]:
    """The ids of jobs that ended before that time and whose files retention has not removed, oldest first. Those that a
    job goes on from which has not ended are left out."""
    retry = aliased(Job)
    goes_on = select(retry.id).where(retry.retry_of == Job.id, retry.state.not_in(TERMINAL)).exists()
    query = select(Job.id).where(Job.state.in_(TERMINAL), Job.finished_at < finished_before, ~goes_on)
    return session.scalars(query.where(Job.files_removed_at.is_(None)).order_by(Job.number).limit(limit)).all()


# --- changes ---------------------------------------------------------------------------------------------


def delete_job(session: Session, job_id: str, deleted_at: datetime) -> None:
    """Delete a job and all that hangs on it, and note that its files are to go, too, and what its attempts took."""
    keep_usage(session, job_id)
    session.execute(delete(Job).where(Job.id == job_id))
    session.execute(insert(DeletedJob).values(id=job_id, deleted_at=deleted_at))


def forget_deleted_jobs(session: Session, job_ids: Sequence[str]) -> None:
    """Forget that jobs were deleted, whose files are gone."""
    session.execute(delete(DeletedJob).where(DeletedJob.id.in_(job_ids)))


def set_files_removed(session: Session, job_ids: Sequence[str], removed_at: datetime) -> None:
    """Note that the files of jobs are removed."""
    session.execute(update(Job).where(Job.id.in_(job_ids)).values(files_removed_at=removed_at))


def empty_logs(session: Session, ended_before: datetime, limit: int) -> int:
    """Empty the logs of attempts that ended before that time, `limit` at most; return how many."""
    old = select(Attempt.id).where(Attempt.ended_at < ended_before, Attempt.log != "").limit(limit)
    ids = session.scalars(old).all()
    if ids:
        session.execute(update(Attempt).where(Attempt.id.in_(ids)).values(log=""))
    return len(ids)
