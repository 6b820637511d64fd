"""What SQL knows of an attempt between its epochs: on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from service.errors import StaleAttempt
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.pause import pause
from service.store import clock
from service.store.engine import Store
from service.store.jobs import get_job
from service.store.records import Attempt
from service.wire.worker import Heartbeat, Outcome
from tests.integration.jobs_in_sql import begin, events_of, start, submit
from tests.unit.service.reports import epoch

pytest_plugins = ["tests.databases"]

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Clock:
    """The database's clock, as the test sets it."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self, _: object) -> datetime:
        return self.time


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    its_clock = Clock()
    monkeypatch.setattr(clock, "database_time", its_clock)
    return its_clock


def attempt_of(store: Store, job_id: str) -> Attempt:
    with store.read() as session:
        found = get_job(session, job_id).last_attempt
    assert found is not None
    return found


def seen(store: Store, job_id: str) -> tuple[int | None, datetime | None, str | None]:
    attempt = attempt_of(store, job_id)
    return attempt.iterations, attempt.progress_at, attempt.waits_for


def test_an_attempt_gets_on_when_its_iterations_grow(store: Store, time: Clock) -> None:
    job_id = submit(store)
    claimed = jobs.claim_next(store)
    assert claimed is not None
    assert seen(store, job_id) == (None, None, None)
    token = reports.exchange_ticket(store, job_id, claimed.ticket).report_token
    assert seen(store, job_id) == (None, START, None)
    for seconds, iterations, got_on in [(5, None, 0), (10, 0, 10), (15, 0, 10), (20, 7, 20), (25, 7, 20), (30, 8, 30)]:
        time.time = START + seconds * SECOND
        reports.heartbeat(store, job_id, token, Heartbeat(iterations=iterations))
        assert seen(store, job_id) == (iterations, START + got_on * SECOND, None)
    assert [kind for _, kind, _ in events_of(store, job_id)] == ["state"] * 3


def test_who_waits_and_says_so_gets_on(store: Store, time: Clock) -> None:
    job_id, token = start(store)
    reports.heartbeat(store, job_id, token, Heartbeat(iterations=3))
    for seconds in (100, 200):
        time.time = START + seconds * SECOND
        reports.heartbeat(store, job_id, token, Heartbeat(iterations=3, waits_for="no space left\x00"))
        assert seen(store, job_id) == (3, time.time, "no space left\ufffd")
    time.time = START + 300 * SECOND
    reports.heartbeat(store, job_id, token, Heartbeat(iterations=3))
    assert seen(store, job_id) == (3, START + 200 * SECOND, None)
    reports.heartbeat(store, job_id, token, Heartbeat(waits_for="workers"))  # of who does not know the iterations
    assert seen(store, job_id) == (3, time.time, "workers")


def test_an_epoch_is_progress_too(store: Store, time: Clock) -> None:
    job_id, token = start(store)
    reports.heartbeat(store, job_id, token, Heartbeat(waits_for="no space left"))
    time.time = START + 60 * SECOND
    reports.record_epoch(store, job_id, token, epoch(1))
    assert seen(store, job_id) == (None, time.time, None)


def test_only_the_live_attempt_is_heard(store: Store, time: Clock) -> None:
    job_id, first = start(store)
    _, another = start(store)
    for token in (another, "x"):
        with pytest.raises(StaleAttempt, match="this report token is not that of the live attempt of job job-"):
            reports.heartbeat(store, job_id, token, Heartbeat(iterations=5))
    with pytest.raises(StaleAttempt):
        reports.heartbeat(store, "job-0", first, Heartbeat(iterations=5))
    reports.heartbeat(store, job_id, first, Heartbeat(iterations=5, waits_for="no space left"))
    jobs.attempt_lost(store, job_id, 1, "node died", max_attempts=3)
    assert seen(store, job_id) == (5, START, None)  # it waits for nothing any more
    with pytest.raises(StaleAttempt):
        reports.heartbeat(store, job_id, first, Heartbeat(iterations=6))
    second = begin(store, job_id)
    with pytest.raises(StaleAttempt):
        reports.heartbeat(store, job_id, first, Heartbeat(iterations=6))
    assert seen(store, job_id) == (None, START, None)
    assert not reports.heartbeat(store, job_id, second, Heartbeat(iterations=1)).pause
    jobs.cancel(store, job_id)
    with pytest.raises(StaleAttempt):
        reports.heartbeat(store, job_id, second, Heartbeat(iterations=2))


def test_an_attempt_that_is_to_pause_learns_of_it_and_is_heard_until_it_has_paused(store: Store, time: Clock) -> None:
    job_id, token = start(store)
    pause(store, job_id)
    assert reports.heartbeat(store, job_id, token, Heartbeat(iterations=5)).pause
    assert seen(store, job_id) == (5, START, None)
    reports.finish(store, job_id, token, Outcome(state="paused"))
    with pytest.raises(StaleAttempt):
        reports.heartbeat(store, job_id, token, Heartbeat(iterations=6))


def test_a_heartbeat_is_one_change(store: Store, time: Clock) -> None:
    job_id, token = start(store)
    statements: list[str] = []
    event.listen(store._engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    reports.heartbeat(store, job_id, token, Heartbeat(iterations=1))
    assert [statement.split()[0] for statement in statements] in (["UPDATE"], ["BEGIN", "UPDATE"])
