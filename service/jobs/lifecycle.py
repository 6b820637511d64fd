"""Use cases of a job: submit, cancel, claim, recover. What its workers report is in `service.jobs.reports`.

Every change is compare-and-set on the job's locked row and appends its event in the same transaction. Values in,
values out: what leaves here is a frozen record, never a live row.
"""

import hashlib
import math
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from service.errors import (
    StateConflict,
)
from service.store.attempts import last_attempt_with_epoch
from service.store.engine import Store
from service.store.jobs import get_job, next_to_submit
from service.store.tables import Attempt, Event, Job
from service.store.trials import stop_trials
from service.wire.states import FOLLOWS, TERMINAL, JobState

LOG_CHARACTERS = 64 * 1024  # kept of each attempt's log, from its end


@dataclass(frozen=True)
class Claim:
    """An attempt the controller is to submit. The ticket exists here alone; SQL has its hash."""

    job_id: str
    attempt: int
    submission_id: str
    ticket: str


# --- the user's side -------------------------------------------------------------------------------


def cancel(db: Store, job_id: str) -> JobState:
    """Ask for the job's end; returns its state. Asking again is fine. Raises StateConflict once it ended otherwise."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.job_state in (JobState.CANCELLING, JobState.CANCELLED):
            return job.job_state
        if job.job_state in TERMINAL:
            raise StateConflict(f"job {job_id} has {job.state} already; only a job that has not ended can be cancelled")
        move(session, job, JobState.CANCELLED if job.job_state is JobState.QUEUED else JobState.CANCELLING)
        return job.job_state


# --- the controller's side -------------------------------------------------------------------------


def claim_next(db: Store, *, free: float = math.inf, total: float = math.inf) -> Claim | None:
    """Make the next attempt of the oldest waiting job; None when none waits or it does not fit.

    `free`, `total`: workers that the cluster can take now and at best. First come, first served, so that large jobs
    are not starved; a job larger than the whole cluster is passed over until the cluster grows.
    """
    with db.write() as session:
        job = next_to_submit(session, total)
        if job is None or job.workers > free:
            return None
        job.attempt += 1
        ticket = secrets.token_urlsafe(32)
        attempt = Attempt(
            job_id=job.id,
            number=job.attempt,
            submission_id=f"{job.id}-a{job.attempt}",
            ticket_hash=hash_of(ticket),
            created_at=now(),
        )
        session.add(attempt)
        move(session, job, JobState.SUBMITTING)
        return Claim(job.id, attempt.number, attempt.submission_id, ticket)


def reissue_ticket(db: Store, job_id: str, attempt: int) -> Claim | None:
    """A fresh ticket for an attempt that Ray never got (the service died in between); None when it moved on."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.job_state is not JobState.SUBMITTING or job.attempt != attempt:
            return None
        row = attempt_of(job, attempt)
        ticket = secrets.token_urlsafe(32)
        row.ticket_hash = hash_of(ticket)
        return Claim(job.id, attempt, row.submission_id, ticket)


def attempt_lost(db: Store, job_id: str, attempt: int, message: str, *, max_attempts: int) -> None:
    """The Ray job of the live attempt ended without an outcome: recover, or give the job up.

    It is given up when `max_attempts` in a row were lost without a new epoch; a job that makes progress never is.
    """
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if not _is_live(job, attempt):
            return
        end_attempt(job, message)
        attempt_of(job, attempt).lost = True
        progress = last_attempt_with_epoch(session, job_id)
        in_a_row = sum(row.lost for row in job.attempts if row.number > progress)
        if in_a_row < max_attempts:
            move(session, job, JobState.RECOVERING)
        else:
            sentence = f"attempt {attempt} was lost, {in_a_row} in a row without a new epoch: {message}"
            move(session, job, JobState.FAILED, code="attempts_exhausted", message=sentence)


def attempt_interrupted(db: Store, job_id: str, attempt: int) -> None:
    """The service stops in order, and its Ray with it: the live attempt is over, which does not count as a loss."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if _is_live(job, attempt):
            end_attempt(job, "the service was stopped")
            move(session, job, JobState.RECOVERING)


def keep_log(db: Store, submission_id: str, log: str) -> None:
    """Keep the end of an attempt's log, which Ray forgets when it ends."""
    with db.write() as session:
        session.execute(update(Attempt).where(Attempt.submission_id == submission_id).values(log=log_end(log)))


def log_end(log: str) -> str:
    """The last lines of a log, as many as LOG_CHARACTERS have room for."""
    end = storable(log[-LOG_CHARACTERS:])
    return end if len(log) <= LOG_CHARACTERS else end.partition("\n")[2] or end


def confirm_cancelled(db: Store, job_id: str) -> None:
    """Ray confirms that nothing of the job runs any more."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.job_state is JobState.CANCELLING:
            end_attempt(job, "cancelled")
            move(session, job, JobState.CANCELLED)


# --- shared ----------------------------------------------------------------------------------------


def move(session: Session, job: Job, to: JobState, *, code: str | None = None, message: str | None = None) -> None:
    assert to in FOLLOWS[job.job_state], f"{job.id}: {job.state} -> {to}"
    job.state, message = to, message and storable(message)
    if to in TERMINAL:
        job.finished_at, job.error_code, job.error_message = now(), code, message
        stop_trials(session, job.id)
    data = {"state": to, "attempt": job.attempt, "code": code, "message": message}
    append_event(session, job, "state", {key: value for key, value in data.items() if value is not None})


def append_event(session: Session, job: Job, kind: str, data: dict[str, Any]) -> None:
    job.last_event += 1
    session.add(Event(job_id=job.id, number=job.last_event, kind=kind, data=data, created_at=now()))


def _is_live(job: Job, attempt: int) -> bool:
    return job.attempt == attempt and job.job_state in (JobState.SUBMITTING, JobState.RUNNING)


def attempt_of(job: Job, number: int) -> Attempt:
    return next(attempt for attempt in job.attempts if attempt.number == number)


def end_attempt(job: Job, message: str | None) -> None:
    row = attempt_of(job, job.attempt)
    if row.ended_at is None:  # else: cancelled while recovering; how the attempt ended is known
        row.ended_at, row.message, row.ticket_hash = now(), message and storable(message), None


def storable(text: str) -> str:
    """A Ray job's last words may be anything: PostgreSQL keeps no NUL, and no database a lone surrogate."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def now() -> datetime:
    return datetime.now(UTC)
