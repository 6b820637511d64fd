"""What the jobs of each owner take of the cluster, and have taken; jobs of nobody are left out."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Select, delete, func, insert, or_, select

from service.store.engine import Session
from service.store.ownership import OF_EVERYBODY
from service.store.records import AttemptUsage
from service.store.rows import columns_of, records_of
from service.store.tables import Attempt, Job, UsageOfDeletedJob
from service.wire.states import JobState


def jobs_by_owner(session: Session, states: Collection[JobState]) -> dict[str, int]:
    """How many jobs in one of `states` each owner has; one who has none is left out."""
    query = select(Job.owner, func.count()).where(Job.state.in_(states), Job.owner.is_not(None)).group_by(Job.owner)
    rows = session.execute(query, execution_options=OF_EVERYBODY)
    return {owner: count for owner, count in rows if owner is not None}


def attempts_since(session: Session, since: datetime) -> Sequence[AttemptUsage]:
    """The attempts of owners' jobs that ran after the time `since`, for a while at least, those of deleted jobs too."""
    ran = or_(Attempt.ended_at.is_(None), Attempt.ended_at > since)
    query = _of_owners().where(ran)
    gone = select(*columns_of(UsageOfDeletedJob, AttemptUsage)).where(UsageOfDeletedJob.ended_at > since)
    found = [session.execute(one, execution_options=OF_EVERYBODY) for one in (query, gone)]
    return [usage for rows in found for usage in records_of(AttemptUsage, rows)]


def keep_usage(session: Session, job_id: str) -> None:
    """Keep what the attempts of a job took, which is about to be deleted."""
    names = ["owner", "workers", "device", "created_at", "ended_at"]
    rows = _of_owners().where(Job.id == job_id, Attempt.ended_at.is_not(None))
    session.execute(insert(UsageOfDeletedJob).from_select(names, rows))


def forget_usage(session: Session, ended_before: datetime) -> None:
    """Forget what attempts of deleted jobs took that ended before that time."""
    session.execute(delete(UsageOfDeletedJob).where(UsageOfDeletedJob.ended_at < ended_before))


def _of_owners() -> Select[tuple[str | None, int, str, datetime, datetime | None]]:
    device = Job.spec["device"].as_string().label("device")
    query = select(Job.owner, Job.workers, device, Attempt.created_at, Attempt.ended_at)
    return query.join(Attempt, Attempt.job_id == Job.id).where(Job.owner.is_not(None))
