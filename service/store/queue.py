"""The queue of jobs that wait for an attempt, in SQL: which is next, where each stands, what the others hold."""

import math
from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, select

from service.store.engine import Session
from service.store.tables import Job
from service.wire.states import HOLDS_WORKERS, WAITING

ORDER = (Job.priority.desc(), Job.number)


def waits(total_workers: float) -> ColumnElement[bool]:
    """The condition that a job waits for an attempt, and takes at most `total_workers` workers."""
    waiting = Job.state.in_(WAITING)
    return waiting if total_workers == math.inf else waiting & (Job.workers <= total_workers)


def queue_positions(session: Session, job_ids: Sequence[str], total_workers: float) -> dict[str, int]:
    """The place of each of the jobs among those that wait and fit into a cluster of `total_workers` workers, by its id:
    1 is submitted next. Jobs that are none of these are left out."""
    place = func.row_number().over(order_by=ORDER).label("place")
    queue = select(Job.id, place).where(waits(total_workers)).subquery()
    rows = session.execute(select(queue.c.id, queue.c.place).where(queue.c.id.in_(job_ids)))
    return {row.id: row.place for row in rows}


def held_workers(session: Session) -> int:
    """The workers of all jobs that have a live attempt, or one that is being ended."""
    held = select(func.coalesce(func.sum(Job.workers), 0)).where(Job.state.in_(HOLDS_WORKERS))
    return int(session.scalar(held) or 0)
