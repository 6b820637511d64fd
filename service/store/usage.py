"""What the jobs of each owner take of the cluster, and have taken; jobs of nobody are left out."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import func, or_, select

from service.store.engine import Session
from service.store.ownership import OF_EVERYBODY
from service.store.records import AttemptUsage
from service.store.rows import records_of
from service.store.tables import Attempt, Job
from service.wire.states import JobState


def jobs_by_owner(session: Session, states: Collection[JobState]) -> dict[str, int]:
    """How many jobs in one of `states` each owner has; one who has none is left out."""
    query = select(Job.owner, func.count()).where(Job.state.in_(states), Job.owner.is_not(None)).group_by(Job.owner)
    rows = session.execute(query, execution_options=OF_EVERYBODY)
    return {owner: count for owner, count in rows if owner is not None}


def attempts_since(session: Session, since: datetime) -> Sequence[AttemptUsage]:
    """The attempts of owners' jobs that ran after the time `since`, for a while at least."""
    device = Job.spec["device"].as_string().label("device")
    query = (
        select(Job.owner, Job.workers, device, Attempt.created_at, Attempt.ended_at)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Job.owner.is_not(None), or_(Attempt.ended_at.is_(None), Attempt.ended_at > since))
    )
    return records_of(AttemptUsage, session.execute(query, execution_options=OF_EVERYBODY))
