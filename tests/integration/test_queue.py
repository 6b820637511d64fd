"""The queue in SQL on both databases: whoever is next, and the place of each, are those of a list that is sorted."""

import math
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.store import clock
from service.store.engine import Session, Store
from service.store.jobs import next_to_submit
from service.store.queue import LONGEST_BACKOFF, queue_positions
from service.store.shown import list_jobs
from service.store.tables import Job
from service.wire.states import WAITING, JobState
from tests.integration.jobs_in_sql import submit

pytest_plugins = ["tests.databases"]

S = JobState
DUE = (None, timedelta(hours=-1), 2 * LONGEST_BACKOFF)  # the last was told before the clock was set back
LATER = LONGEST_BACKOFF / 2
JOBS = st.fixed_dictionaries(
    {
        "state": st.sampled_from([S.QUEUED, S.QUEUED, S.RECOVERING, S.RUNNING, S.SUCCEEDED]),
        "priority": st.integers(-1, 1),
        "workers": st.integers(1, 3),
        "owner": st.sampled_from([None, "ada", "bob"]),
        "not_before": st.sampled_from([*DUE, LATER]),
    }
)


def set_jobs(session: Session, facts: list[dict[str, Any]]) -> None:
    """Have the first jobs be these, and the others be ended."""
    now = clock.database_time(session)
    session.execute(sa.update(Job).values(state=S.SUCCEEDED))
    for number, of_it in zip(session.scalars(sa.select(Job.number).order_by(Job.number)).all(), facts, strict=False):
        due = None if of_it["not_before"] is None else now + of_it["not_before"]
        session.execute(sa.update(Job).where(Job.number == number).values(of_it | {"not_before": due}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(JOBS, max_size=12), st.sampled_from([math.inf, 2.0]), st.sampled_from([(), ("ada",)]), st.data())
def test_places(store: Store, facts: list[dict[str, Any]], workers: float, owners: tuple[str, ...], data: Any) -> None:
    with store.read() as session:
        known = len(list_jobs(session, limit=20).items)
    for _ in range(known, 12):
        submit(store)
    with store.write() as session:
        set_jobs(session, facts)
    with store.read() as session:
        jobs = list_jobs(session, limit=20).items[::-1]
        expected = sorted(
            (-job.priority, job.number, job.id)
            for job, of_it in zip(jobs, facts, strict=False)
            if job.state in WAITING
            and job.workers <= workers
            and job.owner not in owners
            and of_it["not_before"] != LATER
        )
        places = {job_id: place for place, (*_, job_id) in enumerate(expected, start=1)}
        asked = data.draw(st.lists(st.sampled_from(jobs), unique_by=lambda job: job.id))
        found = queue_positions(session, asked, clock.database_time(session), workers, owners)
        assert found == {job.id: places[job.id] for job in asked if job.id in places}
        following = next_to_submit(session, workers, owners, lock=False)
        assert (None if following is None else following.id) == next(iter(places), None)
    with store.write() as session:  # as the check of the database at the end of a test wants them
        set_jobs(session, [])
        session.execute(sa.delete(Job))
