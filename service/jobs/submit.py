"""Use cases of whoever submits a job: read its spec, forecast it, accept it.

Every spec comes through one door (service.validation): a job's, a plan's, those of an experiment.
"""

import json
import secrets
from collections.abc import Sequence

from service.algorithms.candidates import trials_of
from service.errors import IdempotencyConflict
from service.jobs.lifecycle import hash_of, now
from service.jobs.telling import tell_of_submission
from service.jobs.terms import DEFAULT_TERMS, Terms
from service.results.past_jobs import complete
from service.spec.job import JobSpec
from service.spec.methods.base import MethodSpec
from service.store.engine import Session, Store
from service.store.jobs import get_job, insert_job, job_spec, jobs_of_experiment
from service.store.keys import KeyTaken, get_idempotency_key, insert_idempotency_key
from service.store.locks import lock_name
from service.store.ownership import owner_of
from service.store.records import IdempotencyKey, NewRun
from service.validation.door import parse_spec
from service.validation.means import Means, check_means, look_up_train_samples


def submit(
    db: Store, raw: bytes, means: Means, idempotency_key: str | None = None, terms: Terms = DEFAULT_TERMS
) -> str:
    """Accept the job whose spec is in `raw` (JSON), checked in full, and return the id of the job.

    A request that is sent again with its key gets its job, even when the cluster has shrunk, or past jobs have taught
    something else, since. Raises InvalidInput where the spec is wrong, NotEnoughWorkers where the cluster is too small,
    and IdempotencyConflict where the key came with another spec.
    """
    accepted = None if idempotency_key is None else _accepted(db, idempotency_key)
    spec = read_spec(db, raw, accepted)
    if accepted is None:
        check_means(spec, means)
    job_id, _ = submit_job(db, spec, idempotency_key, terms)
    return job_id


def to_forecast(db: Store, raw: bytes, means: Means) -> tuple[JobSpec, int]:
    """Read the spec in `raw` (JSON) as `submit` does, and return (it, the training samples of its dataset that are not
    held out), of which a forecast is made; nothing is stored. Raises InvalidInput where the spec is wrong."""
    spec = read_spec(db, raw)
    return spec, look_up_train_samples(spec, means)


def read_spec(db: Store, raw: bytes, accepted: JobSpec | None = None) -> JobSpec:
    """Read the spec in `raw` (JSON), with what it takes from past jobs in place; `accepted` is what the same request
    was accepted as before. Raises InvalidInput where the spec is wrong, or past jobs do not have what it takes."""
    spec = parse_spec(raw)
    with db.read() as session:
        return complete(session, spec, accepted)


def _accepted(db: Store, idempotency_key: str) -> JobSpec | None:
    with db.read() as session:
        known = get_idempotency_key(session, idempotency_key)
        return None if known is None else job_spec(get_job(session, known.job_id))


def submit_job(
    db: Store, spec: JobSpec, idempotency_key: str | None = None, terms: Terms = DEFAULT_TERMS
) -> tuple[str, bool]:
    """Accept a job and return (its id, whether it is new). The same key and spec again give the same job, with the
    terms that it has by then.

    Raises IdempotencyConflict when the key came with another spec.
    """
    if idempotency_key is None:
        with db.write() as session:
            return _add_job(session, spec, terms), True
    fingerprint = _fingerprint(spec)
    try:
        with db.write() as session:
            known = get_idempotency_key(session, idempotency_key)
            if known is not None:
                return _same_request(session, known, fingerprint), False
            job_id = _add_job(session, spec, terms)
            insert_idempotency_key(session, idempotency_key, fingerprint=fingerprint, job_id=job_id, created_at=now())
            return job_id, True
    except KeyTaken as taken:  # two requests with one key at the same time: the other one won
        with db.read() as session:
            known = get_idempotency_key(session, taken.key)
            assert known is not None
            return _same_request(session, known, fingerprint), False


def submit_jobs(db: Store, specs: Sequence[JobSpec], experiment: str, terms: Terms = DEFAULT_TERMS) -> list[str]:
    """Accept the jobs of an experiment at once, or none of them, and return their ids; where the experiment has jobs
    already, nothing is added, and theirs are returned."""
    with db.write() as session:
        lock_name(session, experiment)
        if known := jobs_of_experiment(session, experiment):
            return [job.id for job in known]
        return [_add_job(session, spec, terms) for spec in specs]


def _add_job(session: Session, spec: JobSpec, terms: Terms) -> str:
    """Write the job, and return its id."""
    job_id = new_job_id()
    runs = [_run(spec, method) for method in spec.methods]
    owner = owner_of(session)
    insert_job(session, job_id, spec, runs, now(), priority=terms.priority, time_limit=terms.time_limit, owner=owner)
    tell_of_submission(session, job_id)
    return job_id


def _run(spec: JobSpec, method: MethodSpec) -> NewRun:
    """A method's run as a job begins with it: its trials with the first seed, then those with the next, …"""
    trials = trials_of(spec, method)
    seeds = [spec.seed + number for number in range(spec.seeds) for _ in range(trials)]
    return NewRun(method.label, method.name, seeds, spec.epochs)


def new_job_id() -> str:
    """An id for a new job, which nobody can guess."""
    return f"job-{secrets.token_hex(8)}"


def _fingerprint(spec: JobSpec) -> str:
    return hash_of(json.dumps(spec.model_dump(mode="json"), sort_keys=True))


def _same_request(session: Session, known: IdempotencyKey, fingerprint: str) -> str:
    """The job of a request that came before. Its spec is compared as it is read today, too: a migration, or a new
    default, may have given it another fingerprint than the one that was stored with the key."""
    if known.fingerprint != fingerprint and _fingerprint(job_spec(get_job(session, known.job_id))) != fingerprint:
        raise IdempotencyConflict(
            f"Idempotency-Key {known.key} was used for job {known.job_id} with another spec; use a new key"
        )
    return known.job_id
