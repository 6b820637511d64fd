"""Queries about attempts: the Ray jobs of a job, and their logs."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.store.tables import Attempt, Epoch, Run, Trial


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
