"""What happens to jobs, told to the log and to the metrics once it is committed."""

import logging

from structlog.contextvars import bound_contextvars

from service import metrics
from service.store.engine import Session, after_commit
from service.store.records import Job
from service.wire.states import AttemptEnd, JobState
from service.wire.worker import EpochRecord

log = logging.getLogger(__name__)


def tell_of_submission(session: Session, job_id: str) -> None:
    """Tell that a job was accepted."""

    def tell() -> None:
        metrics.TRANSITIONS.labels(JobState.QUEUED).inc()
        with bound_contextvars(job=job_id):
            log.info("queued")

    after_commit(session, tell)


def tell_of_move(session: Session, job: Job, to: JobState, code: str | None) -> None:
    """Tell that a job came into the state `to`, with a code where it failed; `job` is how it was before."""

    def tell() -> None:
        metrics.TRANSITIONS.labels(to).inc()
        with bound_contextvars(job=job.id, attempt=job.attempt):
            log.info("%s%s", to, f" ({code})" if code else "")

    after_commit(session, tell)


def tell_of_end(session: Session, end: AttemptEnd) -> None:
    """Tell that an attempt ended, and how."""
    after_commit(session, metrics.ATTEMPTS_ENDED.labels(end).inc)


def tell_of_epoch(session: Session, record: EpochRecord) -> None:
    """Tell that an epoch was recorded."""
    after_commit(session, lambda: metrics.EPOCH_SECONDS.labels(record.phase).observe(record.seconds))
