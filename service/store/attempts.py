"""Attempts: the Ray jobs of a job, and their logs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, ScalarSelect, Update, bindparam, case, func, insert, select, update

from service.errors import NotFound
from service.store import records
from service.store.engine import Session
from service.store.rows import columns_of, record_of, records_by
from service.store.tables import ATTEMPTS, Attempt, Epoch, Job, Run, Trial
from service.wire.states import EndReason, JobState

_ATTEMPTS_OF_JOBS = (
    select(ATTEMPTS.c.job_id, *columns_of(ATTEMPTS, records.Attempt))
    .where(ATTEMPTS.c.job_id.in_(bindparam("job_ids", expanding=True)))
    .order_by(ATTEMPTS.c.number)
)


def attempts_by_job(session: Session, job_ids: Sequence[str]) -> dict[str, list[records.Attempt]]:
    """Attempts, oldest first, of the jobs with these ids, by the ids."""
    if not job_ids:
        return {}
    rows = session.execute(_ATTEMPTS_OF_JOBS, {"job_ids": job_ids}).all()
    return records_by("job_id", records.Attempt, rows, _reason)


def _reason(row: Row[*tuple[Any, ...]]) -> dict[str, EndReason | None]:
    return {"reason": None if row.reason is None else EndReason(row.reason)}


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


def note_progress(session: Session, job_id: str, number: int, at: datetime) -> None:
    """Write that an attempt got on at that time, by the database's clock, and waits for nothing."""
    session.execute(_attempt(job_id, number).values(progress_at=at, waits_for=None))


def note_heartbeat(
    session: Session, job_id: str, token_hash: str, *, iterations: int | None, waits_for: str | None, at: datetime
) -> JobState | None:
    """Write the heartbeat of a job's live attempt, the one with that report token, in one statement; return the state
    of the job, or None where it is not that.

    The attempt gets on at that time, by the database's clock, where it has done other `iterations` than when it was
    heard of last, or says what it waits for; `iterations` None: as many as before.
    """
    trains = select(Job).where(Job.id == job_id, Job.state.in_((JobState.RUNNING, JobState.PAUSING)))
    live = trains.with_only_columns(Job.attempt).scalar_subquery()
    state = trains.with_only_columns(Job.state).scalar_subquery()
    values: dict[str, object] = {"waits_for": waits_for}
    if iterations is not None:
        values["iterations"] = iterations
    if waits_for is not None:
        values["progress_at"] = at
    elif iterations is not None:
        got_on = Attempt.iterations.is_distinct_from(iterations)
        values["progress_at"] = case((got_on, at), else_=Attempt.progress_at)
    change = _attempt(job_id, live).where(Attempt.token_hash == token_hash, Attempt.ended_at.is_(None))
    found = session.scalar(change.values(values).returning(state))
    return None if found is None else JobState(found)


def set_seconds(session: Session, job_id: str, number: int, seconds: float) -> None:
    """Note the seconds that an attempt has run."""
    session.execute(_attempt(job_id, number).values(seconds=seconds))


def end_attempt(
    session: Session,
    job_id: str,
    number: int,
    *,
    ended_at: datetime,
    message: str | None,
    lost: bool = False,
    reason: EndReason | None = None,
) -> bool:
    """Write that an attempt is over, whether it was lost, and for what `reason` it has no outcome; one that has ended
    already stays as it is. Return whether it had not."""
    values = {"ended_at": ended_at, "message": message, "ticket_hash": None, "lost": lost, "reason": reason}
    values["waits_for"] = None
    ended = _attempt(job_id, number).where(Attempt.ended_at.is_(None)).values(values)
    return session.scalar(ended.returning(Attempt.number)) is not None


def set_log(session: Session, submission_id: str, log: str) -> None:
    """Store the end of an attempt's log, which the caller has cut."""
    session.execute(update(Attempt).where(Attempt.submission_id == submission_id).values(log=log))


def _attempt(job_id: str, number: int | ScalarSelect[int]) -> Update:
    return update(Attempt).where(Attempt.job_id == job_id, Attempt.number == number)
