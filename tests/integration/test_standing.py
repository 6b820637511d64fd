"""Counts of jobs in SQL, on both databases."""

from datetime import UTC, datetime, timedelta

from service.jobs import lifecycle as jobs
from service.store.engine import Store
from service.store.standing import Standing, count_jobs
from service.wire.states import JobState
from tests.builders import claim
from tests.integration.jobs_in_sql import submit

pytest_plugins = ["tests.databases"]


def counted(store: Store) -> Standing:
    with store.read() as session:
        return count_jobs(session)


def test_none(store: Store) -> None:
    assert counted(store) == Standing({}, {}, None)


def test_jobs_by_state_and_those_that_wait_by_owner_and_workers(store: Store) -> None:
    submit(store)
    submit(store)
    submit(store, workers=2)
    submit(store, workers=2)
    first = claim(store)
    jobs.attempt_lost(store, first.job_id, first.attempt, "gone", max_attempts=3)
    second = claim(store)  # of the same job, which is the oldest
    assert second.job_id == first.job_id
    found = counted(store)
    assert found.jobs == {JobState.SUBMITTING: 1, JobState.QUEUED: 3}
    assert found.waiting == {(None, 1): 1, (None, 2): 2}
    assert found.oldest_queued is not None
    assert timedelta(0) <= datetime.now(UTC) - found.oldest_queued < timedelta(minutes=5)
    jobs.attempt_lost(store, second.job_id, second.attempt, "gone", max_attempts=3)
    assert counted(store).waiting == {(None, 1): 2, (None, 2): 2}  # one that recovers waits, too
