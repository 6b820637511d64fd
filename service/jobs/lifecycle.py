"""Use cases of a job: submit, cancel, claim, recover. What its workers report is in `service.jobs.reports`.

Every change is compare-and-set on the job's locked row and appends its event in the same transaction. Values in,
values out: what leaves here is a frozen record, never a live row.
"""

import hashlib
import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.algorithms.candidates import trials_of
from service.algorithms.epoch_plan import check_across_fields, count_train_samples, known_train_samples, plan_epoch
from service.algorithms.search_space import check_budget, check_search
from service.errors import (
    DatasetMissing,
    FieldError,
    IdempotencyConflict,
    InvalidInput,
    NotEnoughWorkers,
    StateConflict,
)
from service.spec.catalog import require_files
from service.spec.field_errors import field_errors, unique_keys
from service.spec.job import FolderDataset, JobSpec, ScheduledLrSet
from service.spec.methods import SearchMethod
from service.store.attempts import last_attempt_with_epoch
from service.store.engine import Store
from service.store.jobs import get_job, jobs_of_experiment, lock_experiment, next_to_submit
from service.store.keys import get_idempotency_key
from service.store.tables import Attempt, Event, IdempotencyKey, Job, Run, Trial
from service.store.trials import stop_trials
from service.wire.states import FOLLOWS, TERMINAL, JobState

MAX_SPEC_BYTES = 64 * 1024
LOG_CHARACTERS = 64 * 1024  # kept of each attempt's log, from its end


@dataclass(frozen=True)
class Claim:
    """An attempt the controller is to submit. The ticket exists here alone; SQL has its hash."""

    job_id: str
    attempt: int
    submission_id: str
    ticket: str


def parse_spec(raw: bytes) -> JobSpec:
    """The JobSpec in `raw` (JSON). Raises InvalidInput with one entry a wrong field."""
    _require_unique_keys(raw)
    try:
        spec = JobSpec.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidInput(field_errors(error, JobSpec)) from None
    check_across_fields(spec)
    _check_phases(spec)
    _check_searches(spec, known_train_samples(spec))
    return spec


def _require_unique_keys(raw: bytes) -> None:
    try:
        json.loads(raw, object_pairs_hook=unique_keys)
    except InvalidInput:
        raise
    except (ValueError, RecursionError):
        pass  # no JSON, or nested too deeply: Pydantic says so


def _check_phases(spec: JobSpec) -> None:
    phases = spec.lr_set.phases if isinstance(spec.lr_set, ScheduledLrSet) else []
    message = f"after the last epoch ({spec.epochs}); lower it, raise epochs, or leave the phase out"
    late = [
        FieldError(f"lr_set.phases[{number}].first_epoch", phase.first_epoch, message)
        for number, phase in enumerate(phases)
        if phase.first_epoch > spec.epochs
    ]
    if late:
        raise InvalidInput(late)


def _check_searches(spec: JobSpec, train_samples: int | None) -> None:
    errors = [] if train_samples is None else check_budget(spec, train_samples)
    for number, method in enumerate(spec.methods):
        if isinstance(method, SearchMethod):
            errors += check_search(spec, number, method, train_samples)
    if errors:
        raise InvalidInput(errors)


def check_dataset(spec: JobSpec, data_dir: Path) -> None:
    """Raise InvalidInput when the files are absent from `data_dir`, or too few for one epoch of the job or of a trial
    of its searches."""
    dataset = spec.dataset
    try:
        if isinstance(dataset, FolderDataset):
            samples = count_train_samples(dataset, data_dir)
            plan_epoch(spec, samples)
            _check_searches(spec, samples)
        elif not dataset.download:
            require_files(dataset.name, data_dir)
    except DatasetMissing as error:
        field, value = (
            ("dataset.path", dataset.path) if isinstance(dataset, FolderDataset) else ("dataset", dataset.name)
        )
        raise InvalidInput([FieldError(field, value, error.detail)]) from None


def check_capacity(spec: JobSpec, *, cpus: float, gpus: float) -> None:
    """Raise NotEnoughWorkers when a cluster of that size can never run the job: a worker takes a CPU, or a GPU."""
    have, what = (
        (gpus, "GPUs") if spec.device == "cuda" else (max(cpus, gpus) if spec.device == "auto" else cpus, "CPUs")
    )
    if have < 1:
        remedy = "use auto or cpu, or add GPUs" if what == "GPUs" else "try again when it has a node"
        raise NotEnoughWorkers(
            f"device: {spec.device} takes one of the cluster's {what} a worker, and it has none; {remedy}"
        )
    if spec.workers > have:
        raise NotEnoughWorkers(
            f"workers: {spec.workers} asked for, one {what[:-1]} each, but the cluster has {cpus:g} CPUs and "
            f"{gpus:g} GPUs; ask for {int(have)} at most, or grow the cluster"
        )


# --- the user's side -------------------------------------------------------------------------------


def submit(db: Store, spec: JobSpec, idempotency_key: str | None = None) -> tuple[str, bool]:
    """Accept a job: (its id, whether it is new). The same key and spec again give the same job.

    Raises IdempotencyConflict when the key came with another spec.
    """
    fingerprint = hash_of(json.dumps(spec.model_dump(mode="json"), sort_keys=True))
    try:
        with db.write() as session:
            if idempotency_key is not None:
                known = get_idempotency_key(session, idempotency_key)
                if known is not None:
                    return _same_request(known, fingerprint), False
            job = _add_job(session, spec)
            if idempotency_key is not None:
                session.add(
                    IdempotencyKey(key=idempotency_key, fingerprint=fingerprint, job_id=job.id, created_at=now())
                )
            return job.id, True
    except IntegrityError:
        if idempotency_key is None:
            raise
        with db.read() as session:  # two requests with one key at the same time: the other one won
            known = get_idempotency_key(session, idempotency_key)
            if known is None:
                raise
            return _same_request(known, fingerprint), False


def submit_all(db: Store, specs: Sequence[JobSpec], experiment: str) -> list[str]:
    """Accept the jobs of an experiment at once, or none of them; their ids. Jobs that it has already are its jobs."""
    with db.write() as session:
        lock_experiment(session, experiment)
        if known := jobs_of_experiment(session, experiment):
            return [job.id for job in known]
        return [_add_job(session, spec).id for spec in specs]


def _add_job(session: Session, spec: JobSpec) -> Job:
    job = Job(
        id=f"job-{secrets.token_hex(8)}",
        name=spec.name,
        experiment=spec.experiment,
        model=spec.model,
        dataset=spec.dataset.name,
        workers=spec.workers,
        optimizer=spec.optimizer.name,
        global_batch_size=spec.global_batch_size,
        trials=spec.seeds * sum(trials_of(spec, method) for method in spec.methods),
        spec=spec.model_dump(mode="json"),
        state=JobState.QUEUED,
        created_at=now(),
        attempt=0,
        last_event=0,
        runs=[
            Run(
                method=method.name,
                trials=[
                    Trial(number=number + 1, seed=spec.seed + number // per_seed, length=spec.epochs)
                    for per_seed in [trials_of(spec, method)]
                    for number in range(spec.seeds * per_seed)
                ],
            )
            for method in spec.methods
        ],
    )
    session.add(job)
    session.flush()
    append_event(session, job, "state", {"state": JobState.QUEUED})
    return job


def _same_request(known: IdempotencyKey, fingerprint: str) -> str:
    if known.fingerprint != fingerprint:
        raise IdempotencyConflict(
            f"Idempotency-Key {known.key} was used for job {known.job_id} with another spec; use a new key"
        )
    return known.job_id


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
