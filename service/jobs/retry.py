"""The use case of a retry: a new job that goes on from the last checkpoints of one that failed or was cancelled.

The job that ended stays as it is: a terminal state never changes. The new one takes over its spec, its terms and what
is recorded of it here, and its files when its workers start (workers.retry).
"""

from service.errors import IdempotencyConflict, StateConflict
from service.jobs.lifecycle import hash_of, now
from service.jobs.submit import new_job_id
from service.jobs.telling import tell_of_submission
from service.store.engine import Session, Store
from service.store.jobs import get_job, insert_job, job_spec
from service.store.keys import KeyTaken, get_idempotency_key, insert_idempotency_key
from service.store.records import IdempotencyKey, NewRun
from service.store.retries import copy_progress
from service.wire.states import JobState


def retry(db: Store, job_id: str, idempotency_key: str | None = None) -> str:
    """Accept a job that goes on where that one ended, and return its id; the same key again gives the same job. Its
    lost attempts and its running time count from zero.

    Raises NotFound when there is no such job, StateConflict unless it has failed or was cancelled, and
    IdempotencyConflict when the key came with another request.
    """
    fingerprint = hash_of(f"retry of {job_id}")
    try:
        with db.write() as session:
            if idempotency_key is not None and (known := get_idempotency_key(session, idempotency_key)) is not None:
                return _same_request(known, fingerprint)
            retry_id = _add_retry(session, job_id)
            if idempotency_key is not None:
                created_at = now()
                insert_idempotency_key(
                    session, idempotency_key, fingerprint=fingerprint, job_id=retry_id, created_at=created_at
                )
            return retry_id
    except KeyTaken as taken:  # two requests with one key at the same time: the other one won
        with db.read() as session:
            known = get_idempotency_key(session, taken.key)
            assert known is not None
            return _same_request(known, fingerprint)


def _add_retry(session: Session, job_id: str) -> str:
    job = get_job(session, job_id, lock=True)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise StateConflict(f"job {job_id} is {job.state}; only a job that failed or was cancelled can be retried")
    retry_id, spec = new_job_id(), job_spec(job)
    runs = [NewRun(method.label, method.name, [], spec.epochs) for method in spec.methods]
    insert_job(
        session,
        retry_id,
        spec,
        runs,
        now(),
        priority=job.priority,
        time_limit=job.time_limit,
        retry_of=job_id,
        owner=job.owner,
    )
    copy_progress(session, job_id, retry_id)
    tell_of_submission(session, retry_id)
    return retry_id


def _same_request(known: IdempotencyKey, fingerprint: str) -> str:
    if known.fingerprint != fingerprint:
        raise IdempotencyConflict(
            f"Idempotency-Key {known.key} was used for job {known.job_id} by another request; use a new key"
        )
    return known.job_id
