"""Attempts: the Ray jobs of a job, and their logs."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Update, func, insert, select, update

from service.errors import NotFound
from service.store import records
from service.store.engine import Session
from service.store.rows import columns_of, record_of
from service.store.tables import Attempt, Epoch, Job, Run, Trial
from service.wire.states import EndReason, JobState


def attempts_by_job(session: Session, of: ColumnElement[bool]) -> dict[str, list[records.Attempt]]:
    """Attempts, oldest first, of the jobs that the condition `of` holds for, by the jobs' ids."""
    query = select(Attempt.job_id, *columns_of(Attempt, records.Attempt)).join(Job).where(of).order_by(Attempt.number)
    found: dict[str, list[records.Attempt]] = {}
    for row in session.execute(query):
        reason = None if row.reason is None else EndReason(row.reason)
        found.setdefault(row.job_id, []).append(record_of(records.Attempt, row, reason=reason))
    return found


def ended_submissions(session: Session, submission_ids: Sequence[str]) -> Mapping[str, bool]:
    """Those of the submission ids that are attempts of this service's jobs and have ended, and whether with an outcome:
    then the Ray job exits by itself soon."""
    query = select(Attempt.submission_id, Attempt.reason, Job.state).join(Job)
    rows = session.execute(query.where(Attempt.submission_id.in_(submission_ids), Attempt.ended_at.is_not(None)))
    return {row.submission_id: row.reason is None and row.state != JobState.CANCELLED for row in rows}


def attempts_without_log(session: Session) -> Sequence[str]:
    """The submission ids of attempts that have ended, and whose log is not kept yet, oldest first."""
    query = select(Attempt.submission_id).where(Attempt.ended_at.is_not(None), Attempt.log.is_(None))
    return session.scalars(query.order_by(Attempt.id)).all()


def get_log(session: Session, job_id: str, attempt: int) -> records.AttemptLog:
    """The log of an attempt of a job, as far as it is kept. Raises NotFound when the job has no attempt of that
    number."""
    query = select(Attempt.submission_id, Attempt.log).where(Attempt.job_id == job_id, Attempt.number == attempt)
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"job {job_id} has no attempt {attempt}; GET /v1/jobs/{job_id} has the number of the newest")
    return record_of(records.AttemptLog, row)


def last_attempt_with_epoch(session: Session, job_id: str) -> int:
    """The number of the newest attempt of a job that recorded an epoch; 0 when none did."""
    query = select(func.max(Epoch.attempt)).join(Trial).join(Run).where(Run.job_id == job_id)
    return session.scalar(query) or 0


# --- changes ---------------------------------------------------------------------------------------------


def insert_attempt(
    session: Session,
    job_id: str,
    number: int,
    *,
    submission_id: str,
    ticket_hash: str,
    cluster: str | None,
    created_at: datetime,
) -> None:
    """Insert the next attempt of a job, which has not exchanged its ticket yet and is to be submitted to `cluster`."""
    values = {"submission_id": submission_id, "ticket_hash": ticket_hash, "cluster": cluster, "created_at": created_at}
    session.execute(insert(Attempt).values(job_id=job_id, number=number, **values))


def set_ticket(session: Session, job_id: str, number: int, ticket_hash: str) -> None:
    """Give an attempt that has not exchanged its ticket another one in its place."""
    session.execute(_attempt(job_id, number).values(ticket_hash=ticket_hash))


def set_token(session: Session, job_id: str, number: int, token_hash: str) -> None:
    """Give an attempt its report token in exchange for its ticket, which is worthless from now on."""
    session.execute(_attempt(job_id, number).values(ticket_hash=None, token_hash=token_hash))


def end_attempt(
    session: Session,
    job_id: str,
    number: int,
    *,
    ended_at: datetime,
    message: str | None,
    lost: bool = False,
    reason: EndReason | None = None,
) -> None:
    """Write that an attempt is over, whether it was lost, and for what `reason` it has no outcome; one that has ended
    already stays as it is."""
    values = {"ended_at": ended_at, "message": message, "ticket_hash": None, "lost": lost, "reason": reason}
    session.execute(_attempt(job_id, number).where(Attempt.ended_at.is_(None)).values(values))


def set_log(session: Session, submission_id: str, log: str) -> None:
    """Store the end of an attempt's log, which the caller has cut."""
    session.execute(update(Attempt).where(Attempt.submission_id == submission_id).values(log=log))


def _attempt(job_id: str, number: int) -> Update:
    return update(Attempt).where(Attempt.job_id == job_id, Attempt.number == number)
