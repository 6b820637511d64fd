"""The queue of jobs that wait for an attempt, in SQL: which is next, and where each stands."""

import math
from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, func, or_, select

from service.store import clock
from service.store.engine import Session
from service.store.ownership import OF_EVERYBODY
from service.store.tables import Job
from service.wire.states import WAITING

ORDER = (Job.priority.desc(), Job.number)
LONGEST_BACKOFF = timedelta(seconds=60)


def waits(session: Session, total_workers: float, owners_who_wait: Collection[str]) -> ColumnElement[bool]:
    """The condition that a job waits for an attempt, may have one by the database's clock, takes at most
    `total_workers` workers, and is of none of `owners_who_wait`. One that may have its next attempt later than after
    the longest backoff was told so before the clock was set back, and may have it."""
    now = clock.database_time(session)
    due = or_(Job.not_before.is_(None), Job.not_before <= now, Job.not_before > now + LONGEST_BACKOFF)
    waiting = Job.state.in_(WAITING) & due
    if total_workers != math.inf:
        waiting &= Job.workers <= total_workers
    if owners_who_wait:
        waiting &= or_(Job.owner.is_(None), Job.owner.not_in(owners_who_wait))
    return waiting


def queue_positions(
    session: Session, job_ids: Sequence[str], total_workers: float, owners_who_wait: Collection[str] = ()
) -> dict[str, int]:
    """The place of each of the jobs among all those that wait, are due, fit into a cluster of `total_workers` workers
    and are of none of `owners_who_wait`, by its id: 1 is submitted next. Jobs that are none of these are left out."""
    place = func.row_number().over(order_by=ORDER).label("place")
    queue = select(Job.id, place).where(waits(session, total_workers, owners_who_wait)).subquery()
    query = select(queue.c.id, queue.c.place).where(queue.c.id.in_(job_ids))
    rows = session.execute(query, execution_options=OF_EVERYBODY)
    return {row.id: row.place for row in rows}
