"""How many jobs are in which state, counted in SQL for whoever watches the service."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from service.store.engine import Session
from service.store.tables import Job
from service.wire.states import WAITING, JobState


@dataclass(frozen=True)
class Standing:
    """The jobs in each state; those that wait for an attempt, by their owner and the number of workers that they take;
    and when the oldest of those that are queued was submitted, None where none is."""

    jobs: Mapping[JobState, int]
    waiting: Mapping[tuple[str | None, int], int]
    oldest_queued: datetime | None


def count_jobs(session: Session) -> Standing:
    """Count the jobs by state. The index on the state has all that is read of those that do not wait."""
    by_state = session.execute(select(Job.state, func.count()).group_by(Job.state))
    waits = select(Job.owner, Job.workers, func.count().label("jobs")).where(Job.state.in_(WAITING))
    oldest = select(Job.created_at).where(Job.state == JobState.QUEUED).order_by(Job.number).limit(1)
    return Standing(
        jobs={JobState(state): count for state, count in by_state},
        waiting={(row.owner, row.workers): row.jobs for row in session.execute(waits.group_by(Job.owner, Job.workers))},
        oldest_queued=session.scalar(oldest),
    )
