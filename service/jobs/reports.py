"""Use cases of a job's workers: every call is fenced by the ticket or the token of the live attempt.

Each is one transaction under the job's row lock. Repeats are accepted: an answer may be lost on the way.
"""

import json
import secrets
from hmac import compare_digest
from itertools import repeat
from typing import cast

from sqlalchemy.orm import Session

from service.algorithms.trajectory import best_of, newest_trajectory
from service.errors import RecordConflict, StaleAttempt
from service.jobs import lifecycle as jobs
from service.store.engine import Store
from service.store.epochs import epochs_of_trial, get_epoch, last_epoch
from service.store.jobs import get_job
from service.store.tables import Branch, Epoch, Job, Layer, Trial
from service.store.trials import get_run, get_trial, list_trials, trials_with_cost
from service.wire.states import JobState
from service.wire.worker import (
    Assignment,
    CheckpointRef,
    EpochRecord,
    LayersRecord,
    Outcome,
    ResumePoint,
    TrialProgress,
    TrialRecord,
    TrialState,
)

MAX_RESUME_POINTS = 20


def exchange_ticket(db: Store, job_id: str, ticket: str) -> Assignment:
    """The Ray job of the live attempt begins: its ticket, once, for its spec and its report token."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        row = jobs.attempt_of(job, job.attempt) if job.job_state is JobState.SUBMITTING else None
        if row is None or row.ticket_hash is None or not compare_digest(row.ticket_hash, jobs.hash_of(ticket)):
            raise StaleAttempt(f"this ticket is not for the live attempt of job {job_id}, or was used already")
        token = secrets.token_urlsafe(32)
        row.ticket_hash, row.token_hash = None, jobs.hash_of(token)
        job.started_at = job.started_at or jobs.now()
        jobs.move(session, job, JobState.RUNNING)
        return Assignment(
            job_id=job.id,
            attempt=job.attempt,
            spec=json.dumps(job.spec),
            report_token=token,
            resume=_resume_points(session, job),
            trials=_progress(session, job),
        )


def progress(db: Store, job_id: str, token: str) -> list[TrialProgress]:
    """What is recorded of every trial that has begun. Raises StaleAttempt."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        _require_live(job, token)
        return _progress(session, job)


def record_trial(db: Store, job_id: str, token: str, record: TrialRecord) -> None:
    """A trial begins, changes its hyperparameters, or ends before its last epoch. Raises StaleAttempt, or
    RecordConflict when the job has no such run, or the number is another trial's."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        _require_live(job, token)
        trial = get_trial(session, job_id, record.label, record.trial)
        if trial is None:
            run = get_run(session, job_id, record.label)
            if run is None:
                raise RecordConflict(f"job {job_id} has no run {record.label}")
            trial = Trial(run=run, number=record.trial, key=record.key)
            session.add(trial)
            job.trials += 1
        elif (trial.key or record.key) != record.key:
            raise RecordConflict(f"trial {record.trial} of {record.label} of job {job_id} is {trial.key}")
        message = record.message and jobs.storable(record.message)
        values = {"key": record.key, "seed": record.seed, "config": record.config, "length": record.epochs}
        if all(getattr(trial, name) == value for name, value in values.items()) and (trial.state, trial.message) == (
            record.state,
            message,
        ):
            return
        for name, value in values.items():
            setattr(trial, name, value)
        trial.state, trial.message = record.state, message
        document = record.model_dump(mode="json", exclude={"key"}) | {"method": trial.run.method}
        jobs.append_event(session, job, "trial", document)


def record_epoch(db: Store, job_id: str, token: str, record: EpochRecord) -> None:
    """Write one epoch with its branches and layers. The same record again is accepted and changes nothing.

    A record of an earlier attempt is replaced: the live attempt's trajectory is the one that goes on, and what the
    other one cost is kept. Raises StaleAttempt, or RecordConflict when another record of this attempt stands there or
    an epoch would be left out.
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
            return
        if record.epoch > last_epoch(session, trial.id) + 1:
            raise RecordConflict(f"epoch {record.epoch} of job {job_id} comes before the epochs left out")
        if known is not None:
            trial.lost_samples += known.samples
            session.delete(known)
            session.flush()
        values = record.model_dump(exclude={"label", "trial", "branches", "layers"})
        session.add(
            Epoch(
                **values,
                trial_id=trial.id,
                attempt=job.attempt,
                fingerprint=record.fingerprint(),
                recorded_at=jobs.now(),
                branches=[Branch(**branch.model_dump()) for branch in record.branches],
                layers=[] if record.layers is None else _layers(record.layers),
            )
        )
        trial.state = "completed" if record.epoch == trial.length else "running"
        document = record.model_dump(mode="json", exclude={"checkpoint", "layers"})  # what is watched live stays small
        jobs.append_event(session, job, "epoch", document | {"method": trial.run.method, "attempt": job.attempt})


def _layers(record: LayersRecord) -> list[Layer]:
    columns = zip(record.names, record.lwn, record.lgn, record.trust_ratio or repeat(None), strict=False)
    same = {"first_step": record.first_step, "every": record.every}
    return [
        Layer(number=number, name=name, lwn=lwn, lgn=lgn, trust_ratio=ratio, **same)
        for number, (name, lwn, lgn, ratio) in enumerate(columns, start=1)
    ]


def finish(db: Store, job_id: str, token: str, outcome: Outcome) -> None:
    """The live attempt ends. Success needs every trial to have ended (else RecordConflict)."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.state == outcome.state and _holds_token(job, token):
            return  # the same outcome again: its answer was lost on the way
        _require_live(job, token)
        if outcome.state == "succeeded":
            for run, trial in list_trials(session, job_id):
                if trial.state in ("pending", "running"):
                    raise RecordConflict(
                        f"job {job_id} has {last_epoch(session, trial.id)} of {trial.length} epochs of "
                        f"{run.label} {trial.number} recorded; report the others first"
                    )
        jobs.end_attempt(job, outcome.message)
        jobs.move(session, job, JobState(outcome.state), code=outcome.code, message=outcome.message)


def _holds_token(job: Job, token: str) -> bool:
    known = jobs.attempt_of(job, job.attempt).token_hash if job.attempt else None
    return known is not None and compare_digest(known, jobs.hash_of(token))


def _require_live(job: Job, token: str) -> None:
    if job.job_state is not JobState.RUNNING or not _holds_token(job, token):
        raise StaleAttempt(f"this report token is not that of the live attempt of job {job.id} ({job.state})")


def _progress(session: Session, job: Job) -> list[TrialProgress]:
    """Every trial that has begun, with what it took."""
    return [
        TrialProgress(
            label=run.label,
            trial=trial.number,
            key=trial.key,
            seed=trial.seed,
            config=trial.config or {},
            state=cast(TrialState, trial.state),
            epochs=epochs,
            samples=samples,
        )
        for run, trial, epochs, samples in trials_with_cost(session, job.id)
        if trial.state != "pending"
    ]


def _resume_points(session: Session, job: Job) -> list[ResumePoint]:
    """Checkpoints of every trial's newest trajectory, newest first: the last MAX_RESUME_POINTS, and the best."""
    points: list[ResumePoint] = []
    for run, trial in list_trials(session, job.id):
        its_points = [
            ResumePoint(
                label=run.label,
                trial=trial.number,
                epoch=row.epoch,
                val_accuracy=row.val_accuracy,
                checkpoint=CheckpointRef.model_validate(row.checkpoint),
            )
            for row in newest_trajectory(epochs_of_trial(session, trial.id))
            if row.checkpoint is not None
        ]
        newest = its_points[: -MAX_RESUME_POINTS - 1 : -1]
        if newest and (best := best_of(its_points)) not in newest:
            newest.append(best)  # its weights are still to be had when the training has ended
        points += newest
    return points
