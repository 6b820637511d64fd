"""Which attempts hang, and that nothing is held against them for what happened to the service."""

from datetime import UTC, datetime, timedelta

import pytest

from service.cluster.base import Overview, RayJobStatus
from service.cluster.fake import FakeCluster
from service.cluster.hangs import CONFIRM_S, LOOK_S, HangWatch, limit_seconds, stands_still
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.pause import pause
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.store import clock
from service.store.engine import Store
from service.store.jobs import jobs_in
from service.wire.states import JobState
from service.wire.worker import EpochRecord, Heartbeat, Outcome
from tests.builders import epoch_record, spec_document

pytest_plugins = ["tests.databases"]

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
S = JobState


@pytest.mark.parametrize(("slowest", "limit"), [(None, 300), (0.5, 300), (60.0, 300), (60.1, 300.5), (7200.0, 36_000)])
def test_the_limit(slowest: float | None, limit: float) -> None:
    assert limit_seconds(300, slowest) == limit


@pytest.mark.parametrize(
    ("progress_at", "since", "now", "seconds"),
    [
        (100, 0, 150, 50),
        (100, 120, 150, 30),  # this service began to look later
        (0, 150, 150, 0),
        (100, 90, 80, -10),  # the clock was set back behind all of it
        (200, 100, 150, 50),  # or behind the last progress alone
        (200, 150, 450, 250),
    ],
)
def test_for_how_long_an_attempt_stands_still(progress_at: int, since: int, now: int, seconds: int) -> None:
    assert stands_still(*(START + value * SECOND for value in (progress_at, since, now))) == seconds


class World:
    """A running job, a watch that looks at it, and all the clocks."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.now, self.jump, self.answers, self.probes = store, 0.0, 0.0, True, 0
        monkeypatch.setattr(clock, "database_time", lambda _: START + (self.now + self.jump) * SECOND)
        self.cluster = FakeCluster()
        self.watch = self.new_watch()
        self.job_id, _ = submit_job(store, JobSpec.model_validate(spec_document(epochs=9)))
        claimed = jobs.claim_next(store)
        assert claimed is not None
        self.ticket, self.submission_id = claimed.ticket, claimed.submission_id
        self.cluster.submit(self.submission_id, self.job_id, {})
        self.cluster.set_status(self.submission_id, RayJobStatus.RUNNING)

    def new_watch(self) -> HangWatch:
        return HangWatch(self.store, self.api_answers, 300.0, lambda: self.now)

    def api_answers(self) -> bool:
        self.probes += 1
        return self.answers

    def start(self) -> str:
        return reports.exchange_ticket(self.store, self.job_id, self.ticket).report_token

    def look(self) -> list[str]:
        with self.store.read() as session:
            live = jobs_in(session, (S.SUBMITTING, S.RUNNING, S.PAUSING, S.CANCELLING))
        overview: Overview = self.cluster.overview()
        return list(self.watch.look(live, overview).values())

    def after(self, seconds: float) -> list[str]:
        """What is found on the way to so many seconds later, by a look each LOOK_S."""
        end, found = self.now + seconds, []
        while self.now < end:
            self.now += LOOK_S
            found += self.look()
        return found


@pytest.fixture
def world(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(sqlite_store, monkeypatch)
    assert world.look() == []
    return world


def beat(world: World, token: str, iterations: int | None, waits_for: str | None = None) -> None:
    beat = Heartbeat(iterations=iterations, waits_for=waits_for)
    reports.heartbeat(world.store, world.job_id, token, beat)


def test_an_attempt_that_gets_on_no_more_is_found(world: World) -> None:
    beat(world, token := world.start(), 41)
    assert world.after(200) == []
    beat(world, token, 42)
    assert world.after(300 + CONFIRM_S) == []
    assert world.probes == 6  # only now was there anything to be sure of
    told = "it hung: the training stands at iteration 42, for 335 s (the limit is 300 s)"
    assert world.after(LOOK_S) == [told]
    beat(world, token, 42)  # it lives, and does not get on
    assert len(world.after(LOOK_S)) == 1
    beat(world, token, 43)
    assert world.after(300) == []


def test_an_attempt_that_never_begins_is_found(world: World) -> None:
    world.start()
    assert world.after(300 + CONFIRM_S) == []
    assert world.after(LOOK_S) == ["it hung: the training has not begun, for 335 s (the limit is 300 s)"]


def test_a_driver_that_does_not_come_for_its_spec_is_found(world: World) -> None:
    world.cluster.set_status(world.submission_id, RayJobStatus.PENDING)
    world.watch = world.new_watch()
    assert world.after(1000) == []  # Ray's business
    world.cluster.set_status(world.submission_id, RayJobStatus.RUNNING)
    assert world.after(305 + CONFIRM_S) == []
    assert len(world.after(LOOK_S)) == 1


def test_slow_epochs_are_waited_for(world: World) -> None:
    token = world.start()
    record = EpochRecord.model_validate(epoch_record(1, seconds=200.0))
    reports.record_epoch(world.store, world.job_id, token, record)
    assert world.after(1000 + CONFIRM_S) == []
    assert world.after(LOOK_S) == ["it hung: the training has not begun, for 1035 s (the limit is 1000 s)"]


def test_who_says_what_is_waited_for_does_not_hang(world: World) -> None:
    token = world.start()
    for _ in range(20):
        beat(world, token, 42, "no space left")
        assert world.after(100) == []
    assert world.after(300) != []  # it says nothing any more


def test_each_epoch_is_progress(world: World) -> None:
    token = world.start()
    for epoch in range(1, 10):
        reports.record_epoch(world.store, world.job_id, token, EpochRecord.model_validate(epoch_record(epoch)))
        assert world.after(300) == []


def test_a_service_that_starts_finds_nobody_hung(world: World) -> None:
    world.start()
    world.now += 7200  # it was stopped
    world.watch = world.new_watch()
    assert world.look() == []
    assert world.after(300 + CONFIRM_S) == []
    assert len(world.after(LOOK_S)) == 1


def test_a_time_without_looks_counts_for_nothing(world: World) -> None:
    """The database or Ray was away, so that no pass came so far; or the service itself was frozen."""
    world.start()
    assert world.after(290) == []
    world.now += 60
    assert world.after(300 + CONFIRM_S + LOOK_S) == []
    assert len(world.after(LOOK_S)) == 1


@pytest.mark.parametrize("jump", [7200, -7200])
def test_a_database_clock_that_jumps_counts_for_nothing(world: World, jump: int) -> None:
    world.start()
    assert world.after(200) == []
    world.jump = jump
    assert world.after(300 + CONFIRM_S + LOOK_S) == []
    assert len(world.after(LOOK_S)) == 1


def test_nobody_hangs_while_workers_cannot_reach_the_api(world: World) -> None:
    token = world.start()
    world.answers = False
    assert world.after(3600) == []
    world.answers = True
    assert world.after(25) == []
    beat(world, token, 42)  # of a worker that has asked again meanwhile
    assert world.after(300) == []


def test_an_api_that_went_away_in_between_is_waited_for_anew(world: World) -> None:
    world.start()
    assert world.after(300 + CONFIRM_S) == []
    world.answers = False
    assert world.after(LOOK_S) == []
    world.answers = True
    assert world.after(300 + CONFIRM_S) == []
    assert len(world.after(LOOK_S)) == 1


@pytest.mark.parametrize("status", [None, *(status for status in RayJobStatus if status is not RayJobStatus.RUNNING)])
def test_only_a_ray_job_that_runs_can_hang(world: World, status: RayJobStatus | None) -> None:
    if status is None:
        world.cluster.forget(world.submission_id)
    else:
        world.cluster.set_status(world.submission_id, status)
    assert world.after(1000) == []


def test_a_job_that_is_being_cancelled_is_not_watched(world: World) -> None:
    world.start()
    jobs.cancel(world.store, world.job_id)
    assert world.after(1000) == []


def test_a_job_that_is_to_pause_may_hang_before_it_has(world: World) -> None:
    token = world.start()
    pause(world.store, world.job_id)
    assert world.after(300 + CONFIRM_S) == []
    assert len(world.after(LOOK_S)) == 1
    reports.finish(world.store, world.job_id, token, Outcome(state="paused"))
    assert world.after(1000) == []  # Ray has yet to confirm its end


def test_looks_are_few(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    monkeypatch.setattr(clock, "database_time", lambda _: times.append(world.now) or START + world.now * SECOND)
    for _ in range(100):
        world.now += 0.5
        world.look()
    assert len(times) == 10
