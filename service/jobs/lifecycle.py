"""Use cases of a job: cancel, claim, recover. How it is submitted is in `service.jobs.submit`, what its workers report
in `service.jobs.reports`, how it pauses in `service.jobs.pause`.

Every change is compare-and-set on the job's locked row and appends its event in the same transaction.
"""

import hashlib
import math
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from service.errors import StateConflict
from service.jobs.backoff import backoff_seconds
from service.jobs.quota import NO_QUOTA, Quota, owners_who_wait
from service.jobs.telling import tell_of_end, tell_of_move
from service.store import attempts, clock
from service.store.engine import Session, Store
from service.store.jobs import get_job, next_to_submit, set_job_state
from service.store.records import Job
from service.store.trials import stop_trials
from service.wire.states import FOLLOWS, TERMINAL, AttemptEnd, EndReason, JobState

LOG_CHARACTERS = 64 * 1024  # kept of each attempt's log, from its end
MAX_LOST_ATTEMPTS = 50  # in a row, whatever the reason: a job whose own code ends its node must not go on for ever

COUNTED = (EndReason.OWN, EndReason.HUNG, None)  # against the attempts that a job is given


@dataclass(frozen=True)
class Claim:
    """An attempt that the controller is to submit to Ray. The ticket exists here alone; SQL has its hash."""

    job_id: str
    attempt: int
    submission_id: str
    ticket: str


# --- the user's side -------------------------------------------------------------------------------


def cancel(db: Store, job_id: str) -> JobState:
    """Ask for the job's end and return its state; asking again is fine. Raises NotFound when there is no such job, and
    StateConflict when it has ended otherwise."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.state in (JobState.CANCELLING, JobState.CANCELLED):
            return job.state
        if job.state in TERMINAL:
            raise StateConflict(f"job {job_id} has {job.state} already; only a job that has not ended can be cancelled")
        nothing_runs = job.state in (JobState.QUEUED, JobState.PAUSED)
        after = JobState.CANCELLED if nothing_runs else JobState.CANCELLING
        move(session, job, after)
        return after


# --- the controller's side -------------------------------------------------------------------------


def claim_next(
    db: Store, *, free: float = math.inf, total: float = math.inf, cluster: str | None = None, quota: Quota = NO_QUOTA
) -> Claim | None:
    """Make the next attempt of the oldest waiting job and return it; None when none waits or it does not fit.

    `free` and `total` are the numbers of workers that the cluster can take now and at best; `cluster` is the id of that
    cluster. First come, first served, so that large jobs are not starved; a job larger than the whole cluster is passed
    over until the cluster grows, one that was lost until its backoff is over, and one whose owner has as much as
    `quota` allows until that is less.
    """
    with db.write() as session:
        job = next_to_submit(session, total, owners_who_wait(session, quota, now()))
        if job is None or job.workers > free:
            return None
        job = replace(job, attempt=job.attempt + 1)
        claim = Claim(job.id, job.attempt, f"{job.id}-a{job.attempt}", secrets.token_urlsafe(32))
        attempts.insert_attempt(
            session,
            job.id,
            job.attempt,
            submission_id=claim.submission_id,
            ticket_hash=hash_of(claim.ticket),
            cluster=cluster,
            created_at=now(),
        )
        move(session, replace(job, not_before=None), JobState.SUBMITTING)
        return claim


def reissue_ticket(db: Store, job_id: str, attempt: int) -> Claim | None:
    """Give an attempt that Ray never got (the service died in between) a fresh ticket and return it; None when the job
    has moved on meanwhile."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        live = job.last_attempt
        if live is None or live.number != attempt or job.state is not JobState.SUBMITTING:
            return None
        ticket = secrets.token_urlsafe(32)
        attempts.set_ticket(session, job_id, attempt, hash_of(ticket))
        return Claim(job_id, attempt, live.submission_id, ticket)


def attempt_lost(
    db: Store, job_id: str, attempt: int, message: str, *, max_attempts: int, reason: EndReason = EndReason.OWN
) -> None:
    """End the live attempt, whose Ray job ended without an outcome; let the job recover after a while, or give it up.

    A job is given up when `max_attempts` in a row were lost without a new epoch for reasons of its own, or
    MAX_LOST_ATTEMPTS for any; a job that makes progress never is. Each in a row makes it wait longer for the next.
    A job that was pausing is paused.
    """
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if not _is_live(job, attempt):
            return
        end_attempt(session, job, message, "lost", reason=reason)
        if job.state is JobState.PAUSING:
            move(session, job, JobState.PAUSED)
            return
        progress = attempts.last_attempt_with_epoch(session, job_id)
        before = [one.reason for one in job.attempts if one.lost and one.number > progress]
        reasons = [*before, reason] if attempt > progress else before
        in_a_row, own = len(reasons), sum(one in COUNTED for one in reasons)
        if own < max_attempts and in_a_row < MAX_LOST_ATTEMPTS:
            wait = timedelta(seconds=backoff_seconds(job_id, max(in_a_row, 1)))
            move(session, replace(job, not_before=clock.database_time(session) + wait), JobState.RECOVERING)
        else:
            counted = own if own >= max_attempts else in_a_row
            sentence = f"attempt {attempt} was lost, {counted} in a row without a new epoch: {message}"
            move(session, job, JobState.FAILED, code="attempts_exhausted", message=sentence)


def attempt_interrupted(db: Store, job_id: str, attempt: int) -> None:
    """End the live attempt because the service stops in order, and its Ray with it, which does not count as a loss; the
    job recovers, or is paused where it was pausing."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if _is_live(job, attempt):
            end_attempt(session, job, "the service was stopped", "interrupted", reason=EndReason.SERVICE_STOPPED)
            move(session, job, JobState.PAUSED if job.state is JobState.PAUSING else JobState.RECOVERING)


def end_by_time_limit(db: Store, job_id: str, attempt: int, seconds: float) -> bool:
    """Let a job fail whose attempts have taken more than its time limit, `seconds` altogether, and return whether it
    did; its checkpoints stay. False when the attempt is not the live one any more, or the limit is another by now."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if not _is_live(job, attempt) or job.time_limit is None or seconds <= job.time_limit:
            return False
        message = f"its attempts took {seconds:.0f} s, more than its time limit of {job.time_limit} s; raise time_limit"
        end_attempt(session, job, message, "failed")
        move(session, job, JobState.FAILED, code="time_limit", message=message)
        return True


def note_seconds(db: Store, job_id: str, attempt: int, seconds: float) -> None:
    """Store how many seconds an attempt has run."""
    with db.write() as session:
        attempts.set_seconds(session, job_id, attempt, seconds)


def keep_log(db: Store, submission_id: str, log: str) -> None:
    """Store the end of an attempt's log, which Ray forgets when it ends itself."""
    with db.write() as session:
        attempts.set_log(session, submission_id, log_end(log))


def log_end(log: str) -> str:
    """The last whole lines of a log, as many as LOG_CHARACTERS have room for, fit for the database."""
    end = storable(log[-LOG_CHARACTERS:])
    return end if len(log) <= LOG_CHARACTERS else end.partition("\n")[2] or end


def confirm_cancelled(db: Store, job_id: str) -> None:
    """Bring a cancelling job into the state cancelled, once Ray confirms that nothing of it runs any more."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.state is JobState.CANCELLING:
            end_attempt(session, job, "cancelled", "cancelled")
            move(session, job, JobState.CANCELLED)


# --- shared ----------------------------------------------------------------------------------------


def move(session: Session, job: Job, to: JobState, *, code: str | None = None, message: str | None = None) -> None:
    """Bring a job, whose row is locked, into the state `to`, and write the event that tells of it.

    `job` has whatever else changes in its place already; `code` and `message` say why a job failed. Where the state is
    terminal, trials that have not ended stop.
    """
    assert to in FOLLOWS[job.state], f"{job.id}: {job.state} -> {to}"
    message = message and storable(message)
    moved = replace(job, state=to)
    if to in TERMINAL:
        finished = max(now(), job.started_at or job.created_at)  # the clock may have jumped back
        moved = replace(moved, finished_at=finished, error_code=code, error_message=message)
        stop_trials(session, job.id)
    data = {"state": to, "attempt": job.attempt, "code": code, "message": message}
    event = {key: value for key, value in data.items() if value is not None}
    set_job_state(session, moved, before=job.state, event=event, created_at=now())
    tell_of_move(session, job, to, code)


def _is_live(job: Job, attempt: int) -> bool:
    return job.attempt == attempt and job.state in (JobState.SUBMITTING, JobState.RUNNING, JobState.PAUSING)


def end_attempt(
    session: Session, job: Job, message: str | None, end: AttemptEnd, *, reason: EndReason | None = None
) -> None:
    """End the job's live attempt in SQL; one that was over already (cancelled while it recovered) stays as it was."""
    message = message and storable(message)
    if attempts.end_attempt(
        session, job.id, job.attempt, ended_at=now(), message=message, lost=end == "lost", reason=reason
    ):
        tell_of_end(session, end)


def storable(text: str) -> str:
    """The text without what databases cannot keep: NUL (PostgreSQL) becomes U+FFFD, and a lone surrogate a question
    mark."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def hash_of(secret: str) -> str:
    """The SHA-256 of a text in hexadecimal digits, by which tickets, tokens and specs are known in SQL."""
    return hashlib.sha256(secret.encode()).hexdigest()


def now() -> datetime:
    """The present time, aware and in UTC."""
    return datetime.now(UTC)
