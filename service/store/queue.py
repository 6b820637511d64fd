"""The queue of jobs that wait for an attempt, in SQL: which is next, and where each stands."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Double, and_, bindparam, func, not_, or_, select

from service.store.engine import Session
from service.store.ownership import OF_EVERYBODY
from service.store.records import Job
from service.store.tables import JOBS, UtcDateTime
from service.wire.states import WAITING

ORDER = (JOBS.c.priority.desc(), JOBS.c.number)
LONGEST_BACKOFF = timedelta(seconds=60)

# The condition that a job waits for an attempt, with `parameters_of_waits`: it may have one by the database's
# clock, takes at most `total_workers` workers, and is of none of `owners_who_wait`. One that may have its next attempt
# later than after the longest backoff was told so before the clock was set back, and may have it.
_now, _latest = (bindparam(name, type_=UtcDateTime) for name in ("now", "latest"))
WAITS = and_(
    JOBS.c.state.in_(WAITING),
    or_(JOBS.c.not_before.is_(None), JOBS.c.not_before <= _now, JOBS.c.not_before > _latest),
    JOBS.c.workers <= bindparam("total_workers", type_=Double),
    or_(JOBS.c.owner.is_(None), JOBS.c.owner.not_in(bindparam("owners_who_wait", expanding=True))),
)


def parameters_of_waits(now: datetime, total_workers: float, owners_who_wait: Collection[str]) -> dict[str, Any]:
    """The parameters of WAITS; `now` is the time by the database's clock."""
    of_them = {"total_workers": total_workers, "owners_who_wait": list(owners_who_wait)}
    return {"now": now, "latest": now + LONGEST_BACKOFF, **of_them}


def queue_positions(
    session: Session, jobs: Sequence[Job], now: datetime, total_workers: float, owners_who_wait: Collection[str] = ()
) -> dict[str, int]:
    """The place of each of the jobs among all those that wait, are due at the time `now`, fit into a cluster of
    `total_workers` workers and are of none of `owners_who_wait`, by its id: 1 is submitted next. Jobs that are none of
    these are left out."""
    places = sorted((-job.priority, job.number) for job in jobs)
    if not places:
        return {}
    (first_priority, first_number), (last_priority, last_number) = places[0], places[-1]
    asked = {"first_priority": -first_priority, "first_number": first_number, "numbers": [job.number for job in jobs]}
    asked |= {"last_priority": -last_priority, "last_number": last_number}
    parameters = parameters_of_waits(now, total_workers, owners_who_wait) | asked
    rows = session.execute(_PLACES, parameters, execution_options=OF_EVERYBODY)
    found = {row.number: row.place for row in rows}
    return {job.id: found[job.number] for job in jobs if job.number in found}


def _is_before(which: str) -> ColumnElement[bool]:
    """The condition that a job is before the first of those that are asked for, or before the last."""
    priority, number = (bindparam(f"{which}_{name}", type_=BigInteger) for name in ("priority", "number"))
    return or_(JOBS.c.priority > priority, and_(JOBS.c.priority == priority, JOBS.c.number < number))


# Those before the first are counted, and those from the first to the last, mostly neighbours, are numbered. All that is
# read stands in the index of the queue; the bounds of the priority are what it can be searched by.
_before = select(func.count()).select_from(JOBS).where(WAITS, _is_before("first")).correlate(None).scalar_subquery()
_is_last = and_(JOBS.c.priority == bindparam("last_priority"), JOBS.c.number == bindparam("last_number"))
_place = (_before + func.row_number().over(order_by=ORDER)).label("place")
_numbered = (
    select(JOBS.c.number, _place)
    .where(WAITS, JOBS.c.priority.between(bindparam("last_priority"), bindparam("first_priority")))
    .where(not_(_is_before("first")), or_(_is_before("last"), _is_last))
    .subquery()
)
_PLACES = select(_numbered).where(_numbered.c.number.in_(bindparam("numbers", expanding=True)))
