"""Use cases of a job's workers: every call is fenced by the ticket or the token of the live attempt.

Each is one transaction under the job's row lock. Repeats are accepted: an answer may be lost on the way.
"""

import json
import secrets
from dataclasses import fields, replace
from hmac import compare_digest

from service.algorithms.trajectory import best_of, newest_trajectory
from service.errors import RecordConflict, StaleAttempt
from service.jobs import lifecycle as jobs
from service.jobs.telling import tell_of_epoch
from service.results.past_jobs import keep_settled_learning_rates
from service.store import clock
from service.store.attempts import note_heartbeat, note_progress, set_token
from service.store.engine import Session, Store
from service.store.epochs import discard_epoch, epochs_of_trial, get_epoch, insert_epoch, last_epoch
from service.store.events import append_event
from service.store.jobs import get_job
from service.store.records import JobWithAttempts, TrialFacts
from service.store.trials import (
    get_run,
    get_trial,
    insert_trial,
    list_trials,
    set_trial_state,
    trials_with_cost,
    update_trial,
)
from service.wire.states import JobState
from service.wire.worker import (
    Assignment,
    CheckpointRef,
    EpochRecord,
    Heartbeat,
    Outcome,
    Receipt,
    ResumePoint,
    TrialProgress,
    TrialRecord,
    TrialState,
)

MAX_RESUME_POINTS = 20


def exchange_ticket(db: Store, job_id: str, ticket: str, token: str | None = None) -> Assignment:
    """Exchange the ticket of the live attempt, once, for its spec, its report token, and what is recorded already; the
    job is running from then on.

    The caller has drawn the `token` that it will report with, so that it may ask again when the answer was lost: who
    holds the token that the ticket was exchanged for is answered. None: the token is drawn here. Raises NotFound when
    there is no such job, and StaleAttempt when the ticket is not for the live attempt or was used.
    """
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if token is not None and _is_live(job, token):
            return _assignment(session, job, token)
        live = job.last_attempt if job.state is JobState.SUBMITTING else None
        known = None if live is None else live.ticket_hash
        if known is None or not compare_digest(known, jobs.hash_of(ticket)):
            raise StaleAttempt(f"this ticket is not for the live attempt of job {job_id}, or was used already")
        token = token or secrets.token_urlsafe(32)
        set_token(session, job_id, job.attempt, jobs.hash_of(token))
        note_progress(session, job_id, job.attempt, clock.database_time(session))
        jobs.move(session, replace(job, started_at=job.started_at or max(jobs.now(), job.created_at)), JobState.RUNNING)
        return _assignment(session, job, token)


def progress(db: Store, job_id: str, token: str) -> list[TrialProgress]:
    """What is recorded of every trial that has begun. Raises StaleAttempt when the token is not the live attempt's."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        _require_live(job, token)
        return _progress(session, job_id)


def record_trial(db: Store, job_id: str, token: str, record: TrialRecord) -> Receipt:
    """Write that a trial begins, changes its hyperparameters, or ends before its last epoch. The receipt says whether
    the job is to pause.

    Raises StaleAttempt when the token is not the live attempt's, and RecordConflict when the job has no such run or the
    number is another trial's.
    """
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        _require_live(job, token)
        facts = TrialFacts(
            key=record.key,
            seed=record.seed,
            config=record.config,
            length=record.epochs,
            state=record.state,
            message=record.message and jobs.storable(record.message),
        )
        trial = get_trial(session, job_id, record.label, record.trial)
        run = trial or get_run(session, job_id, record.label)
        if run is None:
            raise RecordConflict(f"job {job_id} has no run {record.label}")
        if trial is None:
            insert_trial(session, job_id, run.id, record.trial, facts)
        elif (trial.key or record.key) != record.key:
            raise RecordConflict(f"trial {record.trial} of {record.label} of job {job_id} is {trial.key}")
        elif all(getattr(trial, field.name) == getattr(facts, field.name) for field in fields(facts)):
            return _receipt(job)
        else:
            update_trial(session, trial.id, facts)
        note_progress(session, job_id, job.attempt, clock.database_time(session))
        document = record.model_dump(mode="json", exclude={"key"}) | {"method": run.method}
        append_event(session, job_id, "trial", document, jobs.now())
        return _receipt(job)


def record_epoch(db: Store, job_id: str, token: str, record: EpochRecord) -> Receipt:
    """Write one epoch with its branches and layers. The same record again is accepted and changes nothing. The receipt
    says whether the job is to pause.

    A record of an earlier attempt is replaced: the live attempt's trajectory is the one that goes on, and what the
    other one cost is kept. Raises StaleAttempt when the token is not the live attempt's, and RecordConflict when the
    job has no such trial or epoch, another record of this attempt stands there, or an epoch would be left out.
    """
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        _require_live(job, token)
        trial = get_trial(session, job_id, record.label, record.trial)
        if trial is None:
            raise RecordConflict(f"job {job_id} has no trial {record.trial} of {record.label}")
        if record.epoch > trial.length:
            raise RecordConflict(f"job {job_id} has {trial.length} epochs; {record.epoch} is not one of them")
        known = get_epoch(session, trial.id, record.epoch)
        if known is not None and known.attempt == job.attempt:
            if known.fingerprint != record.fingerprint():
                raise RecordConflict(f"epoch {record.epoch} of job {job_id} is recorded already, with other values")
            return _receipt(job)
        if record.epoch > last_epoch(session, trial.id) + 1:
            raise RecordConflict(f"epoch {record.epoch} of job {job_id} comes before the epochs left out")
        if known is not None:
            discard_epoch(session, known)
        insert_epoch(session, trial.id, record, attempt=job.attempt, recorded_at=jobs.now())
        note_progress(session, job_id, job.attempt, clock.database_time(session))
        state: TrialState = "completed" if record.epoch == trial.length else "running"
        if trial.state != state:
            set_trial_state(session, trial.id, state)
        document = record.model_dump(mode="json", exclude={"checkpoint", "layers"})  # what is watched live stays small
        append_event(session, job_id, "epoch", document | {"method": trial.method, "attempt": job.attempt}, jobs.now())
        tell_of_epoch(session, record)
        return _receipt(job)


def heartbeat(db: Store, job_id: str, token: str, beat: Heartbeat) -> Receipt:
    """Write how far the live attempt is, and what it waits for; nothing of it becomes an event. The receipt says
    whether the job is to pause. Raises StaleAttempt when the token is not the live attempt's, or there is no such
    job."""
    waits_for = beat.waits_for and jobs.storable(beat.waits_for)
    with db.write() as session:
        at, known_by = clock.database_time(session), jobs.hash_of(token)
        state = note_heartbeat(session, job_id, known_by, iterations=beat.iterations, waits_for=waits_for, at=at)
    if state is None:
        raise StaleAttempt(f"this report token is not that of the live attempt of job {job_id}")
    return Receipt(pause=state is JobState.PAUSING)


def finish(db: Store, job_id: str, token: str, outcome: Outcome) -> None:
    """End the live attempt, and the job with it, with that outcome; the same outcome again changes nothing.

    A job whose attempt has paused is still pausing, until Ray confirms that nothing of it runs any more.
    Raises StaleAttempt when the token is not the live attempt's, and RecordConflict when the job is to have succeeded
    and a trial has not ended, or to have paused and nobody asked.
    """
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if _holds_token(job, token) and (job.state == outcome.state or _has_paused(job, outcome)):
            return  # the same outcome again: its answer was lost on the way
        _require_live(job, token)
        if outcome.state == "succeeded":
            for trial in list_trials(session, job_id):
                if trial.state in ("pending", "running"):
                    raise RecordConflict(
                        f"job {job_id} has {last_epoch(session, trial.id)} of {trial.length} epochs of "
                        f"{trial.label} {trial.number} recorded; report the others first"
                    )
            keep_settled_learning_rates(session, job)
        if outcome.state == "paused":
            if job.state is not JobState.PAUSING:
                raise RecordConflict(f"nobody has asked for a pause of job {job_id}")
            jobs.end_attempt(session, job, "paused", "paused")
            return
        jobs.end_attempt(session, job, outcome.message, outcome.state)
        jobs.move(session, job, JobState(outcome.state), code=outcome.code, message=outcome.message)


def _holds_token(job: JobWithAttempts, token: str) -> bool:
    last = job.last_attempt
    known = None if last is None else last.token_hash
    return known is not None and compare_digest(known, jobs.hash_of(token))


def _has_ended(job: JobWithAttempts) -> bool:
    return job.last_attempt is not None and job.last_attempt.ended_at is not None


def _has_paused(job: JobWithAttempts, outcome: Outcome) -> bool:
    return outcome.state == "paused" and job.state is JobState.PAUSING and _has_ended(job)


def _is_live(job: JobWithAttempts, token: str) -> bool:
    trains = job.state in (JobState.RUNNING, JobState.PAUSING) and not _has_ended(job)
    return trains and _holds_token(job, token)


def _require_live(job: JobWithAttempts, token: str) -> None:
    if not _is_live(job, token):
        raise StaleAttempt(f"this report token is not that of the live attempt of job {job.id} ({job.state})")


def _receipt(job: JobWithAttempts) -> Receipt:
    return Receipt(pause=job.state is JobState.PAUSING)


def _assignment(session: Session, job: JobWithAttempts, token: str) -> Assignment:
    return Assignment(
        job_id=job.id,
        attempt=job.attempt,
        spec=json.dumps(job.spec),
        report_token=token,
        resume=_resume_points(session, job.id),
        trials=_progress(session, job.id),
        retry_of=job.retry_of,
    )


def _progress(session: Session, job_id: str) -> list[TrialProgress]:
    """Every trial that has begun, with what it took."""
    return [
        TrialProgress(
            label=trial.label,
            trial=trial.number,
            key=trial.key,
            seed=trial.seed,
            config=trial.config or {},
            state=trial.state,
            epochs=trial.epochs,
            samples=trial.samples,
        )
        for trial in trials_with_cost(session, job_id)
        if trial.state != "pending"
    ]


def _resume_points(session: Session, job_id: str) -> list[ResumePoint]:
    """Checkpoints of every trial's newest trajectory, newest first: the last MAX_RESUME_POINTS, and the best."""
    points: list[ResumePoint] = []
    for trial in list_trials(session, job_id):
        its_points = [
            ResumePoint(
                label=trial.label,
                trial=trial.number,
                epoch=epoch.epoch,
                val_accuracy=epoch.val_accuracy,
                checkpoint=CheckpointRef.model_validate(epoch.checkpoint),
            )
            for epoch in newest_trajectory(epochs_of_trial(session, trial.id))
            if epoch.checkpoint is not None
        ]
        newest = its_points[: -MAX_RESUME_POINTS - 1 : -1]
        if newest and (best := best_of(its_points)) not in newest:
            newest.append(best)  # its weights are still to be had when the training has ended
        points += newest
    return points
