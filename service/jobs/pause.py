"""Use cases of a pause: ask for it, confirm it, and go on.

A pause costs no work. What trains ends behind its next checkpoint: its workers learn of the pause by the answer to
their next report (`service.jobs.reports`). What has not begun to train is stopped at once.
"""

from service.errors import StateConflict
from service.jobs.lifecycle import end_attempt, move
from service.store.engine import Store
from service.store.jobs import get_job
from service.wire.states import WAITING, JobState

ENDING = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.CANCELLING)


def pause(db: Store, job_id: str) -> JobState:
    """Ask for a pause of the job and return its state; asking again is fine. A job that waits is paused at once.

    Raises NotFound when there is no such job, and StateConflict when it has ended or is being cancelled.
    """
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.state in ENDING:
            raise StateConflict(f"job {job_id} is {job.state}; only a job that has not ended can be paused")
        if job.state in (JobState.PAUSING, JobState.PAUSED):
            return job.state
        after = JobState.PAUSED if job.state in WAITING else JobState.PAUSING
        move(session, job, after)
        return after


def resume(db: Store, job_id: str) -> JobState:
    """Let a paused job wait for its next attempt, which goes on from its newest checkpoints, and return its state; one
    that goes on already stays as it is.

    Raises NotFound when there is no such job, and StateConflict when it has ended, is being cancelled, or is still
    pausing.
    """
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.state in ENDING:
            raise StateConflict(f"job {job_id} is {job.state}; only a paused job can be resumed")
        if job.state is JobState.PAUSING:
            raise StateConflict(f"job {job_id} is still pausing; resume it when it is paused")
        if job.state is not JobState.PAUSED:
            return job.state
        move(session, job, JobState.QUEUED)
        return JobState.QUEUED


def confirm_paused(db: Store, job_id: str) -> None:
    """Bring a pausing job into the state paused, once Ray confirms that nothing of it runs any more. Its attempt has
    reported that it paused, or had not begun: it is no loss."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.state is JobState.PAUSING:
            end_attempt(session, job, "paused before it began", "paused")
            move(session, job, JobState.PAUSED)
