"""What the tests of the use cases on both databases share: jobs in any state, and what SQL has of them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import ForerunError
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.lifecycle import Claim
from service.jobs.pause import confirm_paused, pause
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.store import epochs as stored_epochs
from service.store.engine import Store
from service.store.events import events_after
from service.store.jobs import get_job
from service.store.records import JobWithAttempts
from service.store.tables import Base
from service.wire.states import JobState
from service.wire.worker import EpochRecord, Outcome
from tests.unit.service.reports import epoch
from tests.unit.service.specs import small

S = JobState
SUCCESS = Outcome(state="succeeded")
PAUSED = Outcome(state="paused")
FAILURE = Outcome(state="failed", code="diverged", message="every branch diverged")


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate(small(**{"epochs": 3, **changes}))


def submit(db: Store, key: str | None = None, **changes: Any) -> str:
    return submit_job(db, spec(**changes), key)[0]


def claim(db: Store) -> Claim:
    found = jobs.claim_next(db)
    assert found is not None
    return found


def start(db: Store, **changes: Any) -> tuple[str, str]:
    """Make a running job, and return its id and report token."""
    job_id = submit(db, **changes)
    return job_id, begin(db, job_id)


def begin(db: Store, job_id: str) -> str:
    """Claim and start the next attempt of the job, the only one that waits; return its report token."""
    claimed = claim(db)
    assert claimed.job_id == job_id
    return reports.exchange_ticket(db, job_id, claimed.ticket).report_token


def lose(db: Store, job_id: str, *, max_attempts: int = 3) -> None:
    jobs.attempt_lost(db, job_id, job_of(db, job_id).attempt, "node died", max_attempts=max_attempts)


def job_of(db: Store, job_id: str) -> JobWithAttempts:
    with db.read() as session:
        return get_job(session, job_id)


def state_of(db: Store, job_id: str) -> JobState:
    return job_of(db, job_id).state


def events_of(db: Store, job_id: str) -> list[tuple[int, str, dict[str, Any]]]:
    with db.read() as session:
        return [(e.number, e.kind, e.data) for e in events_after(session, job_id, 0)]


def as_event(record: EpochRecord, attempt: int) -> dict[str, Any]:
    """The event that tells of the record, of a run that has no label of its own."""
    document = record.model_dump(mode="json", exclude={"checkpoint", "layers"})
    return {**document, "method": record.label, "attempt": attempt}


def epochs_of(db: Store, job_id: str) -> list[tuple[int, int, float]]:
    """The recorded epochs of a job, as (epoch, attempt, training loss)."""
    with db.read() as session:
        return [(e.epoch, e.attempt, e.train_loss) for e in stored_epochs.epochs_of(session, job_id)]


def count(db: Store, table: type[Base]) -> int:
    with db.read() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table))


def everything(db: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but that of the lease, which no job has a part in."""
    with db.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(sa.select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
            if table.name != "leader"
        }


def bring(db: Store, state: JobState) -> str:
    """Make a job in that state, and return its id."""
    job_id = submit(db, epochs=1)
    if state is S.QUEUED:
        return job_id
    if state is S.CANCELLED:
        jobs.cancel(db, job_id)
        return job_id
    claimed = claim(db)
    if state is S.SUBMITTING:
        return job_id
    token = reports.exchange_ticket(db, job_id, claimed.ticket).report_token
    match state:
        case S.PAUSING | S.PAUSED:
            pause(db, job_id)
            if state is S.PAUSED:
                reports.finish(db, job_id, token, PAUSED)
                confirm_paused(db, job_id)
        case S.RECOVERING:
            lose(db, job_id)
        case S.CANCELLING:
            jobs.cancel(db, job_id)
        case S.SUCCEEDED:
            reports.record_epoch(db, job_id, token, epoch(1))
            reports.finish(db, job_id, token, SUCCESS)
        case S.FAILED:
            reports.finish(db, job_id, token, FAILURE)
    return job_id


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call each of `calls` in a thread of its own, all let go at the same moment; return what they return or raise on
    purpose."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(30)
        try:
            return call()
        except ForerunError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(run, call) for call in calls]]


def refuses(error: type[ForerunError], db: Store, call: Callable[..., Any], *args: Any) -> str:
    """Assert that the call raises the error and changes nothing; return the error's sentence."""
    rows = everything(db)
    with pytest.raises(error) as caught:
        call(db, *args)
    assert everything(db) == rows
    return caught.value.detail


def until_somebody_waits_for_a_lock(db: Store) -> None:
    deadline = monotonic() + 30
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with db.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(waiting):
            assert monotonic() < deadline, "nobody waits"
