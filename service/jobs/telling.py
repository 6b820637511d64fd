"""What happens to jobs, told to the log and to the metrics once it is committed."""

import logging

from structlog.contextvars import bound_contextvars

from service import metrics
from service.store.engine import Session, after_commit
from service.store.records import Job
from service.wire.states import HOLDS_WORKERS, JobState
from service.wire.worker import EpochRecord

log = logging.getLogger(__name__)

# How an attempt ended, by the state that its job came into. One that goes on later was lost.
ENDS = {
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.PAUSED: "paused",
    JobState.RECOVERING: "lost",
}


def tell_of_submission(session: Session, job_id: str) -> None:
    """Tell that a job was accepted."""

    def tell() -> None:
        metrics.TRANSITIONS.labels(JobState.QUEUED).inc()
        with bound_contextvars(job=job_id):
            log.info("queued")

    after_commit(session, tell)


def tell_of_move(session: Session, job: Job, to: JobState, code: str | None) -> None:
    """Tell that a job came into the state `to`, with a code where it failed; `job` is how it was before."""
    had_attempt = job.state in HOLDS_WORKERS
    end = "lost" if code == "attempts_exhausted" else ENDS.get(to)

    def tell() -> None:
        metrics.TRANSITIONS.labels(to).inc()
        if had_attempt and end is not None:
            metrics.ATTEMPTS_ENDED.labels(end).inc()
        with bound_contextvars(job=job.id, attempt=job.attempt):
            log.info("%s%s", to, f" ({code})" if code else "")

    after_commit(session, tell)


def tell_of_epoch(session: Session, record: EpochRecord) -> None:
    """Tell that an epoch was recorded."""
    after_commit(session, lambda: metrics.EPOCH_SECONDS.labels(record.phase).observe(record.seconds))
