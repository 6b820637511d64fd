"""The time limit of a job: what counts, and what a clock that is set does not change."""

from datetime import UTC, datetime, timedelta

import pytest

from service.cluster.base import RayJobStatus
from service.cluster.time_limits import RunningTimes
from service.errors import StaleAttempt, StateConflict
from service.jobs.pause import pause
from service.jobs.terms import change_terms
from service.store.records import Attempt, JobWithAttempts
from tests.unit.service.cluster.test_controller import S, World, clock, world  # noqa: F401

pytest_plugins = ["tests.databases"]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Ticks:
    """A clock of the test's own."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def ticks(world: World) -> Ticks:  # noqa: F811
    ticks = Ticks()
    world.controller._times = RunningTimes(ticks)
    return ticks


def limited(world: World, seconds: int) -> str:  # noqa: F811
    job_id = world.submit()
    change_terms(world.db, job_id, {"time_limit": seconds})
    return job_id


def test_a_clock_that_jumps_before_an_attempt_is_first_looked_at_ends_no_job(world, ticks):  # noqa: F811
    job_id = limited(world, 60)
    world.run_pass()
    world.run_pass(86_400)  # by the machine's clock; by the one that does not jump no second has passed
    assert world.state(job_id) == (S.SUBMITTING, 1)


def test_a_job_over_its_time_fails_and_is_stopped(world, ticks):  # noqa: F811
    job_id = limited(world, 60)
    world.run_pass(3600)  # what it waited is not counted
    token = world.start(f"{job_id}-a1")
    world.run_pass()
    ticks.seconds = 60
    world.run_pass()
    assert world.state(job_id) == (S.RUNNING, 1)
    ticks.seconds = 61
    world.run_pass()
    job = world.job(job_id)
    assert (job.state, job.error_code) == (S.FAILED, "time_limit")
    assert job.error_message == "its attempts took 61 s, more than its time limit of 60 s; raise time_limit"
    assert world.cluster.stopped == [f"{job_id}-a1"]
    with pytest.raises(StaleAttempt):
        world.report(job_id, token)
    with pytest.raises(StateConflict):
        change_terms(world.db, job_id, {"time_limit": None})


def test_the_time_of_all_attempts_counts(world, ticks):  # noqa: F811
    job_id = limited(world, 60)
    world.run_pass()
    world.start(f"{job_id}-a1")
    world.status(f"{job_id}-a1", RayJobStatus.FAILED)
    ticks.seconds = 50
    world.run_pass(50)  # attempt 2
    world.start(f"{job_id}-a2")
    world.run_pass()
    assert world.state(job_id) == (S.RUNNING, 2)
    ticks.seconds = 61
    world.run_pass()
    assert world.job(job_id).error_code == "time_limit"


def test_a_raised_limit_holds_at_once(world, ticks):  # noqa: F811
    job_id = limited(world, 60)
    world.run_pass()
    world.start(f"{job_id}-a1")
    world.run_pass()
    ticks.seconds = 61
    world.cluster.before["capacity"] = lambda: change_terms(world.db, job_id, {"time_limit": 62})
    world.run_pass()
    assert world.state(job_id) == (S.RUNNING, 1)


def test_a_job_that_pauses_is_held_to_its_limit(world, ticks):  # noqa: F811
    job_id = limited(world, 60)
    world.run_pass()
    world.start(f"{job_id}-a1")
    world.run_pass()
    pause(world.db, job_id)
    ticks.seconds = 61
    world.run_pass()
    assert world.job(job_id).error_code == "time_limit"


def test_a_wall_clock_that_jumps_ends_nothing(world, ticks):  # noqa: F811
    job_id = limited(world, 60)
    world.run_pass()
    world.start(f"{job_id}-a1")
    world.run_pass()
    for hours in (2, -4, 2):
        world.run_pass(hours * 3600)
        assert world.state(job_id) == (S.RUNNING, 1)


def test_what_ran_before_the_service_started_anew_counts(world):  # noqa: F811
    job_id = limited(world, 60)
    world.run_pass()
    world.start(f"{job_id}-a1")
    world.restart()
    world.run_pass(61)
    assert world.job(job_id).error_code == "time_limit"


def test_a_wall_clock_that_jumps_while_the_service_starts_anew_ends_nothing(world, ticks):  # noqa: F811
    job_id = limited(world, 100)
    world.run_pass()
    world.start(f"{job_id}-a1")
    world.run_pass()
    ticks.seconds = 31
    world.run_pass(31)
    world.restart()
    world.controller._times = RunningTimes(ticks)
    world.run_pass(7200)  # of which 30 s may have passed since the last note
    assert world.state(job_id) == (S.RUNNING, 1)
    ticks.seconds += 39
    world.run_pass()
    assert world.state(job_id) == (S.RUNNING, 1)
    ticks.seconds += 1
    world.run_pass()
    assert world.job(job_id).error_message.startswith("its attempts took 101 s")


def test_times_are_never_negative() -> None:
    attempts = [
        Attempt(1, "job-1-a1", None, None, NOON, NOON - 3600 * SECOND, None, True, *[None] * 6),
        Attempt(2, "job-1-a2", None, None, NOON, None, None, False, *[None] * 6),
    ]
    job = object.__new__(JobWithAttempts)
    object.__setattr__(job, "attempts", attempts)
    ticks = Ticks()
    times = RunningTimes(ticks)
    assert times.seconds(job, NOON - 60 * SECOND) == 0
    ticks.seconds = 5.0
    assert times.seconds(job, NOON + 3600 * SECOND) == 5.0
    times.forget_all_but([])
    assert times.seconds(job, NOON + 7 * SECOND) == 7.0
