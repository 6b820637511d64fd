"""Jobs as they are shown, in one statement: with the attempt that they have come to, and their first training."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Row, Select, and_, bindparam, func, select

from service.errors import no_job
from service.store import records
from service.store.engine import Session
from service.store.pages import ROWS, Page, decode_cursor, page_of
from service.store.rows import columns_of, record_of, records_of
from service.store.tables import ATTEMPTS, EPOCHS, JOBS, RUNS, TRIALS
from service.wire.states import JobState

# Made once and run with parameters: to make a query takes longer than to run it.
_attempt = and_(ATTEMPTS.c.job_id == JOBS.c.id, ATTEMPTS.c.number == JOBS.c.attempt)
_of_job = RUNS.alias("of_job")
_first_run = select(func.min(_of_job.c.id)).where(_of_job.c.job_id == JOBS.c.id).scalar_subquery()
_first_trial = and_(TRIALS.c.run_id == _first_run, TRIALS.c.number == 1)
_last_epoch = and_(EPOCHS.c.trial_id == TRIALS.c.id, EPOCHS.c.epoch == TRIALS.c.epochs_done)
_SHOWN: Select[*tuple[Any, ...]] = (
    select(*columns_of(JOBS, records.Job))
    .add_columns(*columns_of(ATTEMPTS, records.LastAttempt, prefix="attempt_"))
    .add_columns(*columns_of(TRIALS, records.FirstTraining, prefix="first_"))
    .add_columns(*columns_of(EPOCHS, records.FirstTraining, prefix="first_"))
    .select_from(JOBS.outerjoin(ATTEMPTS, _attempt).outerjoin(TRIALS, _first_trial).outerjoin(EPOCHS, _last_epoch))
)
_ONE = _SHOWN.where(JOBS.c.id == bindparam("job_id"))


def shown_job(session: Session, job_id: str) -> records.ShownJob:
    """The job of that id. Raises NotFound when the store has none."""
    row = session.execute(_ONE, {"job_id": job_id}).one_or_none()
    if row is None:
        raise no_job(job_id)
    return record_of(records.ShownJob, row, **_more(row))


def list_jobs(
    session: Session,
    *,
    state: Sequence[JobState] = (),
    model: str | None = None,
    dataset: str | None = None,
    name: str | None = None,
    experiment: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page[records.ShownJob]:
    """A page of at most `limit` jobs that the filters fit, newest first. Raises InvalidInput when `cursor` is none of
    this list."""
    filters = {"model": model, "dataset": dataset, "name": name, "experiment": experiment, "state": list(state) or None}
    wanted = {name: value for name, value in filters.items() if value is not None}
    before = {} if cursor is None else {"before": decode_cursor(cursor, 1)[0]}
    rows = session.execute(_page(frozenset(wanted), bool(before)), {**wanted, **before, "rows": limit + 1}).all()
    page = page_of(rows, limit, lambda row: (row.number,))
    return Page(records_of(records.ShownJob, page.items, _more), page.next_cursor)


@cache
def _page(filters: frozenset[str], has_cursor: bool) -> Select[*tuple[Any, ...]]:
    """The query for a page of jobs by these columns."""
    query = _SHOWN.order_by(JOBS.c.number.desc()).limit(ROWS)
    for name in sorted(filters):
        is_list = name == "state"
        value: BindParameter[Any] = bindparam(name, expanding=is_list)
        query = query.where(JOBS.c[name].in_(value) if is_list else JOBS.c[name] == value)
    return query.where(JOBS.c.number < bindparam("before")) if has_cursor else query


def _more(row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    attempt = None if row.attempt_number is None else record_of(records.LastAttempt, row, prefix="attempt_")
    first = None if row.first_length is None else record_of(records.FirstTraining, row, prefix="first_")
    return {"state": JobState(row.state), "last_attempt": attempt, "first_training": first}
