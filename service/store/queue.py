"""The queue of jobs that wait for an attempt, in SQL: which is next, and where each stands."""

import math
from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, or_, select

from service.store import clock
from service.store.engine import Session
from service.store.tables import Job
from service.wire.states import WAITING

ORDER = (Job.priority.desc(), Job.number)


def waits(session: Session, total_workers: float) -> ColumnElement[bool]:
    """The condition that a job waits for an attempt, may have one by the database's clock, and takes at most
    `total_workers` workers."""
    due = or_(Job.not_before.is_(None), Job.not_before <= clock.database_time(session))
    waiting = Job.state.in_(WAITING) & due
    return waiting if total_workers == math.inf else waiting & (Job.workers <= total_workers)


def queue_positions(session: Session, job_ids: Sequence[str], total_workers: float) -> dict[str, int]:
    """The place of each of the jobs among those that wait, are due and fit into a cluster of `total_workers` workers,
    by its id: 1 is submitted next. Jobs that are none of these are left out."""
    place = func.row_number().over(order_by=ORDER).label("place")
    queue = select(Job.id, place).where(waits(session, total_workers)).subquery()
    rows = session.execute(select(queue.c.id, queue.c.place).where(queue.c.id.in_(job_ids)))
    return {row.id: row.place for row in rows}
