"""The reconciler against a cluster in memory, on SQLite: the lives of jobs one by one, then all faults in any order."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError

from service.cluster import controller
from service.cluster.base import LIVE, Capacity, RayJobStatus
from service.cluster.controller import EXIT_GRACE_S, SUBMIT_GRACE_S, Controller
from service.cluster.fake import FakeCluster
from service.cluster.lease import Lease
from service.errors import ClusterUnreachable, ForerunError, StaleAttempt, StateConflict
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.pause import pause, resume
from service.jobs.submit import submit_job
from service.jobs.terms import change_terms
from service.spec.job import JobSpec
from service.store.attempts import get_log
from service.store.engine import Store
from service.store.events import events_after
from service.store.jobs import get_job, jobs_in
from service.store.tables import Job
from service.wire.states import HOLDS_WORKERS, TERMINAL, WAITING, EndReason, JobState
from service.wire.worker import EpochRecord, Outcome
from tests.builders import epoch_record, spec_document

pytest_plugins = ["tests.databases"]

S = JobState
PAUSED = Outcome(state="paused")
SUCCEEDED, FAILED = Outcome(state="succeeded"), Outcome(state="failed", code="diverged", message="all of them")
SECOND = timedelta(seconds=1)


class Clock:
    """Stands in for every clock of a service: the time that it writes down, and the one that does not jump."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self, zone: object = UTC) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return (self.time - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds()


class Died(BaseException):
    """The controller's process is killed."""


class FaultyCluster(FakeCluster):
    """A fake whose calls may go wrong, and during which something else may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: tuple[int, bool, BaseException] | None = None  # calls that go well first, whether it takes effect
        self.before: dict[str, Callable[[], object]] = {}  # method -> what happens just before its next call
        self.asked: list[str] = []  # the ticket of each submission asked for, whatever became of it

    def _call(self, name, *arguments):
        self.before.pop(name, lambda: None)()
        if self.fault is None or self.fault[0] > 0:
            if self.fault is not None:
                self.fault = (self.fault[0] - 1, *self.fault[1:])
            return getattr(FakeCluster, name)(self, *arguments)
        _, takes_effect, error = self.fault
        self.fault = None
        if takes_effect:
            getattr(FakeCluster, name)(self, *arguments)
        raise error

    def capacity(self):
        return self._call("capacity")

    def submit(self, submission_id, job_id, env):
        self.asked.append(env["FORERUN_TICKET"])
        return self._call("submit", submission_id, job_id, env)

    def overview(self):
        return self._call("overview")

    def stop(self, submission_id):
        return self._call("stop", submission_id)

    def nodes_of(self, submission_id):
        return self._call("nodes_of", submission_id)


NO_ANSWER = ClusterUnreachable("No answer from Ray.")


@dataclass
class World:
    """A service without its API: the database, the cluster and the controller; and the workers, who call `jobs`."""

    db: Store
    clock: Clock
    cluster: FaultyCluster = field(default_factory=FaultyCluster)
    max_attempts: int = 3

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """The service is started anew, on the same database and the same Ray."""
        self.controller = self.make_controller()

    def make_controller(self, **changes) -> Controller:
        """A controller of the one service there is."""
        settings = {"lease": Lease(self.db, "home"), "max_attempts": self.max_attempts} | changes
        environment = {"FORERUN_API_URL": "http://api"}
        return Controller(self.db, self.cluster, environment, monotonic=self.clock.monotonic, **settings)

    def run_pass(self, seconds_later: float = 0.0) -> None:
        self.clock.time += seconds_later * SECOND
        self.controller.run_pass()

    def submit(self, **changes) -> str:
        return submit_job(self.db, JobSpec.model_validate(spec_document(**{"epochs": 1, **changes})))[0]

    def job(self, job_id) -> Job:
        with self.db.read() as session:
            return get_job(session, job_id)

    def state(self, job_id) -> tuple[JobState, int]:
        """With the number of attempts."""
        job = self.job(job_id)
        return job.state, job.attempt

    def path(self, job_id) -> list[str]:
        with self.db.read() as session:
            return [event.data["state"] for event in events_after(session, job_id, 0) if event.kind == "state"]

    def log(self, job_id, attempt) -> str | None:
        with self.db.read() as session:
            return get_log(session, job_id, attempt).log

    def status(self, submission_id, status, message="") -> None:
        self.cluster.set_status(submission_id, status, message)

    def start(self, submission_id) -> str:
        """The Ray job begins: its report token."""
        self.status(submission_id, RayJobStatus.RUNNING)
        [ticket] = [env["FORERUN_TICKET"] for name, _, env in self.cluster.submitted if name == submission_id]
        return reports.exchange_ticket(self.db, job_of(submission_id), ticket).report_token

    def running(self, **changes) -> str:
        """A job that runs; its id."""
        job_id = self.submit(**changes)
        self.run_pass()
        self.start(f"{job_id}-a1")
        return job_id

    def report(self, job_id, token, epoch=1) -> bool:
        """Whether the job is to pause."""
        return reports.record_epoch(self.db, job_id, token, EpochRecord.model_validate(epoch_record(epoch))).pause


def job_of(submission_id) -> str:
    return submission_id.rpartition("-a")[0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(jobs, "now", clock.now)
    monkeypatch.setattr("service.jobs.submit.now", clock.now)
    return clock


@pytest.fixture
def world(sqlite_store, clock, invariants):
    world = World(sqlite_store, clock)
    yield world
    invariants(sqlite_store)


# --- a normal life -----------------------------------------------------------------------------------


def test_from_queued_to_succeeded(world):
    job_id = world.submit()
    assert world.state(job_id) == (S.QUEUED, 0)
    world.run_pass()
    assert world.state(job_id) == (S.SUBMITTING, 1)
    [(submission_id, its_job, environment)] = world.cluster.submitted
    assert (submission_id, its_job) == (f"{job_id}-a1", job_id)
    assert environment.keys() == {"FORERUN_API_URL", "FORERUN_TICKET"}
    assert environment["FORERUN_API_URL"] == "http://api"

    token = world.start(submission_id)
    assert world.state(job_id) == (S.RUNNING, 1)
    world.run_pass()
    world.report(job_id, token)
    reports.finish(world.db, job_id, token, SUCCEEDED)
    world.run_pass()  # its process has yet to exit
    world.status(submission_id, RayJobStatus.SUCCEEDED)
    world.run_pass(100)
    assert world.path(job_id) == ["queued", "submitting", "running", "succeeded"]
    assert (len(world.cluster.submitted), world.cluster.stopped) == (1, [])


def test_a_failure_that_was_reported_is_no_lost_attempt(world):
    job_id = world.submit()
    world.run_pass()
    token = world.start(f"{job_id}-a1")
    reports.finish(world.db, job_id, token, FAILED)
    world.status(f"{job_id}-a1", RayJobStatus.FAILED, "exit code 1")
    world.run_pass(100)
    assert world.path(job_id) == ["queued", "submitting", "running", "failed"]
    assert world.job(job_id).error_code == "diverged"
    assert len(world.cluster.submitted) == 1


def test_an_outcome_that_arrives_while_ray_is_asked_counts(world):
    """The list of live jobs is older than Ray's answer."""
    job_id = world.submit()
    world.run_pass()
    token = world.start(f"{job_id}-a1")

    def end():
        world.report(job_id, token)
        reports.finish(world.db, job_id, token, SUCCEEDED)
        world.status(f"{job_id}-a1", RayJobStatus.SUCCEEDED)

    world.cluster.before["overview"] = end
    world.run_pass()
    assert world.state(job_id) == (S.SUCCEEDED, 1)


@pytest.mark.parametrize("started", [False, True])
def test_a_service_that_starts_anew_adopts_what_runs(world, started):
    job_id = world.submit()
    world.run_pass()
    if started:
        world.start(f"{job_id}-a1")
    before = world.state(job_id)
    world.restart()
    world.run_pass(3600)
    assert world.state(job_id) == before == (S.RUNNING if started else S.SUBMITTING, 1)
    assert (len(world.cluster.submitted), world.cluster.stopped) == (1, [])


def test_two_services_submit_a_job_once(world):
    """The other one looks between this one's claim and its submit."""
    job_id = world.submit()
    other = Controller(world.db, world.cluster, {})
    world.cluster.before["submit"] = other.run_pass
    world.run_pass()
    other.run_pass()
    assert [submitted for submitted, _, _ in world.cluster.submitted] == [f"{job_id}-a1"]
    world.start(f"{job_id}-a1")


# --- lost attempts -------------------------------------------------------------------------------------

LOST = {
    "failed": (
        RayJobStatus.FAILED,
        "exit code 1:\n\n  no memory \n\n",
        "its Ray job failed without an outcome. no memory",
    ),
    "stopped": (RayJobStatus.STOPPED, "", "its Ray job stopped without an outcome."),
    "in the middle of a traceback": (
        RayJobStatus.FAILED,
        "Traceback (most recent call last):\n  raise ValueError: no\n"
        "\x1b[36mray.exceptions.RaySystemError: System error\x1b[0m: no node\n"
        "  Error in a line that is indented\nErrors: 3\nTraceback (most recent call last):\n  File x\n",
        "its Ray job failed without an outcome. ray.exceptions.RaySystemError: System error: no node",
    ),
    "silent": (RayJobStatus.SUCCEEDED, "done", "its Ray job succeeded without an outcome. done"),
    "unknown": (None, "", "Ray does not know its job any more (was the cluster restarted?)"),
}


@pytest.mark.parametrize(("status", "words", "message"), LOST.values(), ids=LOST)
def test_a_lost_attempt_is_followed_by_the_next_until_they_are_exhausted(world, status, words, message):
    job_id = world.submit()
    world.run_pass()
    for attempt in (1, 2, 3):
        submission_id = f"{job_id}-a{attempt}"
        assert world.state(job_id) == (S.SUBMITTING, attempt)
        assert world.cluster.live() == [submission_id]
        token = world.start(submission_id)
        if status:
            world.status(submission_id, status, words)
        else:
            world.cluster.forget(submission_id)
        world.run_pass()
        with pytest.raises(StaleAttempt):  # should it still be there: it may not speak for the job
            world.report(job_id, token)
    job = world.job(job_id)
    assert (job.state, job.error_code) == (S.FAILED, "attempts_exhausted")
    assert job.error_message == f"attempt 3 was lost, 3 in a row without a new epoch: {message}"
    assert [attempt.message for attempt in job.attempts] == [message] * 3
    again = ["recovering", "submitting", "running"]
    assert world.path(job_id) == ["queued", "submitting", "running", *again, *again, "failed"]
    world.run_pass(100)
    assert len(world.cluster.submitted) == 3


PEER_LOST = "RuntimeError: [gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"


def lost_its_peer(world) -> str:
    """The id of a job with workers on two nodes, of which one has ended because it did not reach the other."""
    job_id = world.running()
    world.cluster.nodes[f"{job_id}-a1"] = {"head": True, "other": True}
    world.status(f"{job_id}-a1", RayJobStatus.FAILED, PEER_LOST)
    world.run_pass()
    assert world.state(job_id) == (S.RUNNING, 1), "Ray may not have noticed yet that a node is gone"
    return job_id


def test_a_node_that_ray_misses_later_is_why_an_attempt_was_lost(world):
    job_id = lost_its_peer(world)
    world.cluster.nodes[f"{job_id}-a1"]["other"] = False
    world.run_pass(11)
    assert world.state(job_id) == (S.SUBMITTING, 2)
    assert world.job(job_id).attempts[0].reason is EndReason.NODE_LOST


def test_a_peer_that_is_lost_while_its_node_stands_is_the_job_s_own(world):
    job_id = lost_its_peer(world)
    world.run_pass(39)
    assert world.state(job_id) == (S.RUNNING, 1)
    world.run_pass(1)
    assert world.state(job_id) == (S.SUBMITTING, 2)
    assert world.job(job_id).attempts[0].reason is EndReason.OWN


@pytest.mark.parametrize(
    ("nodes", "message", "reason"),
    [
        ({"head": True, "other": False}, "ValueError: no", EndReason.NODE_LOST),
        ({"head": True, "other": True}, "ValueError: no", EndReason.OWN),
        ({"head": True}, PEER_LOST, EndReason.OWN),
        ({}, PEER_LOST, EndReason.OWN),
    ],
)
def test_what_nodes_say_of_a_loss_is_not_waited_for_in_vain(world, nodes, message, reason):
    job_id = world.running()
    world.cluster.nodes[f"{job_id}-a1"] = nodes
    world.status(f"{job_id}-a1", RayJobStatus.FAILED, message)
    world.run_pass()
    assert world.state(job_id) == (S.SUBMITTING, 2)
    assert world.job(job_id).attempts[0].reason is reason


def found_hung(world, *submission_ids) -> None:
    """The watch finds these in every pass from now on."""
    found = dict.fromkeys(submission_ids, "it hung: so it did")
    world.controller._hangs.look = lambda jobs, overview: found


def test_what_hangs_is_ended_and_goes_on_in_the_next_attempt(world, caplog):
    job_id = world.running()
    found_hung(world, f"{job_id}-a1")
    for _ in range(3):
        world.status(f"{job_id}-a1", RayJobStatus.RUNNING)
        world.run_pass()
    assert world.state(job_id) == (S.RUNNING, 1)  # until Ray confirms that nothing of it runs
    assert world.cluster.stopped == [f"{job_id}-a1"] * 3
    assert caplog.messages.count(f"ending {job_id}-a1: it hung: so it did") == 1
    world.status(f"{job_id}-a1", RayJobStatus.STOPPED)
    world.run_pass()
    assert world.state(job_id) == (S.SUBMITTING, 2)
    [first, _] = world.job(job_id).attempts
    assert (first.message, first.reason, first.lost) == ("it hung: so it did", "hung", True)


def test_what_hangs_while_it_is_to_pause_is_paused(world):
    job_id = world.running()
    pause(world.db, job_id)
    found_hung(world, f"{job_id}-a1")
    world.run_pass()
    assert world.cluster.stopped == [f"{job_id}-a1"]
    world.status(f"{job_id}-a1", RayJobStatus.STOPPED)
    world.run_pass()
    assert world.state(job_id) == (S.PAUSED, 1)


def test_a_job_that_always_hangs_is_given_up(world):
    job_id = world.submit()
    for attempt in (1, 2, 3):
        world.run_pass()
        world.start(f"{job_id}-a{attempt}")
        found_hung(world, f"{job_id}-a{attempt}")
        world.run_pass()
        world.status(f"{job_id}-a{attempt}", RayJobStatus.STOPPED)
        world.run_pass()
    job = world.job(job_id)
    assert (job.state, job.error_code) == (S.FAILED, "attempts_exhausted")
    assert job.error_message == "attempt 3 was lost, 3 in a row without a new epoch: it hung: so it did"


def test_an_outcome_that_comes_while_it_is_ended_counts(world):
    job_id = world.submit()
    world.run_pass()
    token = world.start(f"{job_id}-a1")
    found_hung(world, f"{job_id}-a1")
    world.run_pass()
    world.report(job_id, token)
    reports.finish(world.db, job_id, token, SUCCEEDED)
    world.status(f"{job_id}-a1", RayJobStatus.STOPPED)
    world.run_pass()
    assert world.state(job_id) == (S.SUCCEEDED, 1)


def test_a_cancel_while_it_is_ended_wins(world):
    job_id = world.running()
    found_hung(world, f"{job_id}-a1")
    world.run_pass()
    jobs.cancel(world.db, job_id)
    world.run_pass()
    world.status(f"{job_id}-a1", RayJobStatus.STOPPED)
    world.run_pass()
    assert world.state(job_id) == (S.CANCELLED, 1)


def test_a_job_that_makes_progress_is_never_given_up(world):
    job_id = world.submit(epochs=3)
    attempts = iter(range(1, 100))

    def lose(epoch=None):
        submission_id = f"{job_id}-a{next(attempts)}"
        world.run_pass()
        token = world.start(submission_id)
        if epoch is not None:
            world.report(job_id, token, epoch)
        world.status(submission_id, RayJobStatus.FAILED, "no memory")
        world.run_pass()

    for epoch in (1, 2, 3, 3):  # the last one twice: a lost attempt was behind its records
        lose(epoch)
        lose()
        lose()
        assert world.state(job_id)[0] is S.SUBMITTING
    lose()
    assert world.state(job_id) == (S.FAILED, 13)
    assert world.job(job_id).error_message == (
        "attempt 13 was lost, 3 in a row without a new epoch: its Ray job failed without an outcome. no memory"
    )


def test_a_service_that_stops_in_order_costs_no_attempt(world):
    world.max_attempts = 1
    world.restart()
    running, waiting = world.running(), world.submit()
    cancelled = world.running()
    jobs.cancel(world.db, cancelled)
    for attempt in (1, 2, 3):
        world.cluster.driver_logs[f"{running}-a{attempt}"] = f"attempt {attempt} trains\n"
        world.controller.release()
        for submission_id in world.cluster.live():
            world.cluster.forget(submission_id)
        assert [world.state(job_id) for job_id in (running, waiting)] == [(S.RECOVERING, attempt)] * 2
        world.restart()
        world.run_pass()
    assert world.state(cancelled)[0] is S.CANCELLED
    assert [attempt.message for attempt in world.job(running).attempts] == ["the service was stopped"] * 3 + [None]
    assert world.log(running, 2) == "attempt 2 trains\n"
    world.status(f"{running}-a4", RayJobStatus.FAILED)
    world.run_pass()
    assert world.state(running) == (S.FAILED, 4)


def test_a_service_stops_though_ray_does_not_answer(world):
    job_id = world.running()
    world.cluster.unreachable = True
    world.controller.release()
    assert (world.state(job_id), world.log(job_id, 1)) == ((S.RECOVERING, 1), None)


# --- logs ------------------------------------------------------------------------------------------------


def test_the_log_is_kept_once_the_driver_has_ended(world):
    job_id = world.submit()
    world.run_pass()
    token = world.start(f"{job_id}-a1")
    reports.finish(world.db, job_id, token, FAILED)
    world.cluster.driver_logs[f"{job_id}-a1"] = "it trains\n"
    world.run_pass()
    assert world.log(job_id, 1) is None  # its last words may yet come
    assert world.controller.logs(f"{job_id}-a1") == "it trains\n"
    world.cluster.driver_logs[f"{job_id}-a1"] = "it trains\nit ends\n"
    world.status(f"{job_id}-a1", RayJobStatus.FAILED)
    world.run_pass()
    world.cluster.forget(f"{job_id}-a1")
    world.cluster.driver_logs.clear()
    world.run_pass()
    assert world.log(job_id, 1) == "it trains\nit ends\n"


def test_of_a_lost_attempt_that_ray_forgot_there_is_no_log(world):
    job_id = world.running()
    world.cluster.forget(f"{job_id}-a1")
    world.run_pass()
    assert (world.log(job_id, 1), world.log(job_id, 2)) == ("", None)


def test_an_attempt_that_ends_before_it_starts_is_lost_too(world):
    job_id = world.submit()
    world.run_pass()
    world.status(f"{job_id}-a1", RayJobStatus.FAILED, "no space left on device")
    world.run_pass()
    assert world.path(job_id) == ["queued", "submitting", "recovering", "submitting"]


def test_one_attempt_may_be_all(sqlite_store, clock):
    world = World(sqlite_store, clock, max_attempts=1)
    job_id = world.running()
    world.status(f"{job_id}-a1", RayJobStatus.FAILED, "x" * 5000)
    world.run_pass()
    assert world.path(job_id) == ["queued", "submitting", "running", "failed"]
    assert len(world.job(job_id).error_message) < 1100


def test_a_second_attempt_can_succeed(world):
    job_id = world.running()
    world.status(f"{job_id}-a1", RayJobStatus.FAILED)
    world.run_pass()
    token = world.start(f"{job_id}-a2")
    world.report(job_id, token)
    reports.finish(world.db, job_id, token, SUCCEEDED)
    assert world.state(job_id) == (S.SUCCEEDED, 2)


# --- Ray out of reach ------------------------------------------------------------------------------------


def test_ray_out_of_reach_changes_nothing(world):
    world.cluster.capacity_value = Capacity(cpus=3, gpus=0)
    first, second, third, last = (world.submit() for _ in range(4))
    world.run_pass()
    world.start(f"{first}-a1")
    world.start(f"{second}-a1")
    jobs.cancel(world.db, second)
    before = {job_id: world.state(job_id) for job_id in (first, second, third, last)}
    assert [state for state, _ in before.values()] == [S.RUNNING, S.CANCELLING, S.SUBMITTING, S.QUEUED]
    world.cluster.unreachable = True
    for _ in range(3):
        with pytest.raises(ClusterUnreachable):
            world.run_pass(3600)
    assert {job_id: world.state(job_id) for job_id in before} == before

    world.cluster.unreachable = False
    world.run_pass()
    assert world.cluster.stopped == [f"{second}-a1"]
    world.run_pass()
    assert [world.state(job_id) for job_id in before] == [
        (S.RUNNING, 1),
        (S.CANCELLED, 1),
        (S.SUBMITTING, 1),
        (S.SUBMITTING, 1),
    ]


@pytest.mark.parametrize("call", range(3))
def test_ray_may_go_out_of_reach_during_a_pass(world, call):
    """Of capacity, overview and submit, any may be the first without an answer."""
    running, queued = world.running(), world.submit()
    world.cluster.fault = (call, False, NO_ANSWER)
    with pytest.raises(ClusterUnreachable):
        world.run_pass()
    assert world.state(running) == (S.RUNNING, 1)
    assert world.state(queued) == ((S.QUEUED, 0) if call < 2 else (S.SUBMITTING, 1))
    world.run_pass(60)
    world.start(f"{queued}-a1")
    assert world.state(queued) == (S.RUNNING, 1)


# --- between the claim and Ray ---------------------------------------------------------------------------


def test_a_submission_whose_answer_was_lost_is_adopted(world):
    job_id = world.submit()
    world.cluster.fault = (3, True, NO_ANSWER)  # after capacity, and two overviews as it begins to lead
    with pytest.raises(ClusterUnreachable):
        world.run_pass()
    assert world.cluster.live() == [f"{job_id}-a1"]
    world.run_pass(60)
    assert len(world.cluster.submitted) == 1
    world.start(f"{job_id}-a1")  # with the only ticket there ever was
    assert world.state(job_id) == (S.RUNNING, 1)


@pytest.mark.parametrize("error", [NO_ANSWER, Died()], ids=["unreachable", "died"])
def test_a_submission_that_never_reached_ray_is_repeated_after_the_grace(world, error):
    job_id = world.submit()
    world.cluster.fault = (3, False, error)
    with pytest.raises(type(error)):
        world.run_pass()
    world.restart()
    assert world.state(job_id) == (S.SUBMITTING, 1)
    assert world.cluster.submitted == []

    world.run_pass()  # it may be under way yet; how long is counted by the service that looks
    world.run_pass(SUBMIT_GRACE_S)
    assert world.cluster.submitted == []
    world.run_pass(1)
    assert [submitted for submitted, _, _ in world.cluster.submitted] == [f"{job_id}-a1"]
    assert world.path(job_id) == ["queued", "submitting"]
    with pytest.raises(StaleAttempt):
        reports.exchange_ticket(world.db, job_id, world.cluster.asked[0])
    world.start(f"{job_id}-a1")
    world.run_pass(60)
    assert world.state(job_id) == (S.RUNNING, 1)


def test_a_repeated_submission_may_fail_again(world):
    job_id = world.submit()
    world.cluster.fault = (3, False, NO_ANSWER)
    with pytest.raises(ClusterUnreachable):
        world.run_pass()
    for _ in range(3):
        world.cluster.fault = (2, False, NO_ANSWER)  # after capacity and overview
        with pytest.raises(ClusterUnreachable):
            world.run_pass(11)
    world.run_pass(11)
    world.start(f"{job_id}-a1")
    assert world.path(job_id) == ["queued", "submitting", "running"]


# --- clocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [2, -2])
def test_a_clock_that_jumps_loses_no_attempt_and_makes_no_negative_duration(world, monkeypatch, hours):
    """The machine's clock, that is; how long something takes is measured by one that does not jump."""
    running, submitting = world.running(), world.submit()
    world.cluster.fault = (2, False, NO_ANSWER)
    with pytest.raises(ClusterUnreachable):
        world.run_pass()
    monkeypatch.setattr(jobs, "now", lambda: world.clock.time + timedelta(hours=hours))
    world.run_pass()
    assert world.cluster.live() == [f"{running}-a1"]  # the submit may be under way yet
    world.run_pass(SUBMIT_GRACE_S + 1)
    token = world.start(f"{submitting}-a1")
    world.report(submitting, token)
    reports.finish(world.db, submitting, token, SUCCEEDED)
    world.run_pass()
    assert world.cluster.stopped == []  # it has a while to exit, whatever the time is
    assert [world.state(job_id) for job_id in (running, submitting)] == [(S.RUNNING, 1), (S.SUCCEEDED, 1)]
    job = world.job(submitting)
    assert job.created_at <= job.started_at <= job.finished_at


# --- cancel ----------------------------------------------------------------------------------------------


def queued(world):
    return world.submit()


def claimed_but_unknown_to_ray(world):
    job_id = world.submit()
    world.cluster.fault = (3, False, NO_ANSWER)
    with pytest.raises(ClusterUnreachable):
        world.run_pass()
    return job_id


def submitting(world):
    job_id = world.submit()
    world.run_pass()
    return job_id


def running(world):
    return world.running()


def recovering(world):
    job_id = world.running()
    world.status(f"{job_id}-a1", RayJobStatus.FAILED)
    world.cluster.capacity_value = Capacity(cpus=0, gpus=0)
    world.run_pass()
    return job_id


def recovering_from_a_restart_of_ray(world):
    job_id = world.running()
    world.cluster.forget(f"{job_id}-a1")
    world.cluster.capacity_value = Capacity(cpus=0, gpus=0)
    world.run_pass()
    return job_id


@pytest.mark.parametrize(
    ("reach", "state", "stopped"),
    [
        (queued, S.QUEUED, 0),
        (claimed_but_unknown_to_ray, S.SUBMITTING, 0),
        (submitting, S.SUBMITTING, 1),
        (running, S.RUNNING, 1),
        (recovering, S.RECOVERING, 0),
        (recovering_from_a_restart_of_ray, S.RECOVERING, 0),
    ],
)
def test_a_cancel_in_any_state_leaves_nothing_live(world, reach, state, stopped):
    job_id = reach(world)
    assert world.state(job_id)[0] is state
    answered = jobs.cancel(world.db, job_id)
    assert answered is jobs.cancel(world.db, job_id) is (S.CANCELLED if state is S.QUEUED else S.CANCELLING)
    world.run_pass()
    world.run_pass()
    assert world.path(job_id)[-1] == "cancelled"
    assert world.cluster.live() == []
    assert len(world.cluster.stopped) == stopped
    world.cluster.capacity_value = Capacity(cpus=8, gpus=0)
    for _ in range(3):
        world.run_pass(100)
    assert world.cluster.live() == []
    assert world.path(job_id).count("submitting") <= 1
    assert jobs.cancel(world.db, job_id) is S.CANCELLED


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED], ids=lambda outcome: outcome.state)
def test_what_has_ended_cannot_be_cancelled(world, outcome):
    job_id = world.submit()
    world.run_pass()
    token = world.start(f"{job_id}-a1")
    world.report(job_id, token)
    reports.finish(world.db, job_id, token, outcome)
    with pytest.raises(StateConflict):
        jobs.cancel(world.db, job_id)
    world.run_pass()
    assert world.state(job_id)[0] == outcome.state


def test_a_cancel_between_claim_and_submit_is_not_lost(world):
    job_id = world.submit()
    world.cluster.before["submit"] = lambda: jobs.cancel(world.db, job_id)
    world.run_pass()
    assert world.state(job_id) == (S.CANCELLING, 1)
    with pytest.raises(StaleAttempt):
        world.start(f"{job_id}-a1")
    world.run_pass()
    world.run_pass()
    assert world.state(job_id) == (S.CANCELLED, 1)
    assert world.cluster.live() == []


def test_a_job_that_is_slow_to_stop_is_waited_for(world):
    job_id = world.running()
    jobs.cancel(world.db, job_id)
    for _ in range(3):
        world.run_pass(100)
        world.status(f"{job_id}-a1", RayJobStatus.RUNNING)  # it has 10 s to react, say
        assert world.state(job_id) == (S.CANCELLING, 1)
    assert world.cluster.stopped == [f"{job_id}-a1"] * 3
    world.status(f"{job_id}-a1", RayJobStatus.SUCCEEDED)
    world.run_pass()
    assert world.path(job_id) == ["queued", "submitting", "running", "cancelling", "cancelled"]


def test_a_worker_of_a_cancelled_job_is_not_heard(world):
    job_id = world.submit()
    world.run_pass()
    token = world.start(f"{job_id}-a1")
    jobs.cancel(world.db, job_id)
    for call in (lambda: world.report(job_id, token), lambda: reports.finish(world.db, job_id, token, SUCCEEDED)):
        with pytest.raises(StaleAttempt):
            call()


# --- pause -----------------------------------------------------------------------------------------------


def test_a_pause_waits_for_the_worker_and_holds_its_place(world):
    world.cluster.capacity_value = Capacity(cpus=1, gpus=0)
    job_id, other = world.submit(epochs=2), world.submit()
    world.run_pass()
    token = world.start(f"{job_id}-a1")
    pause(world.db, job_id)
    for _ in range(3):
        world.run_pass(100)
    assert (world.state(job_id), world.cluster.stopped, world.state(other)) == ((S.PAUSING, 1), [], (S.QUEUED, 0))
    world.report(job_id, token)
    reports.finish(world.db, job_id, token, PAUSED)
    world.run_pass()
    assert world.state(job_id) == (S.PAUSING, 1)  # its process has yet to exit
    world.status(f"{job_id}-a1", RayJobStatus.SUCCEEDED)
    world.run_pass()
    assert (world.state(job_id), world.state(other)) == ((S.PAUSED, 1), (S.SUBMITTING, 1))
    world.run_pass(3600)
    assert world.state(job_id) == (S.PAUSED, 1)
    resume(world.db, job_id)
    end(world, other)
    world.run_pass()
    assert world.state(job_id) == (S.SUBMITTING, 2)


def test_a_process_that_outlives_its_pause_is_stopped_after_the_grace(world):
    job_id = world.submit(epochs=2)
    world.run_pass()
    token = world.start(f"{job_id}-a1")
    pause(world.db, job_id)
    reports.finish(world.db, job_id, token, PAUSED)
    world.run_pass()
    world.run_pass(EXIT_GRACE_S + 1)
    assert world.cluster.stopped == [f"{job_id}-a1"]
    world.run_pass()
    assert world.state(job_id) == (S.PAUSED, 1)


def test_what_has_not_begun_to_train_is_stopped_by_a_pause(world):
    job_id = submitting(world)
    pause(world.db, job_id)
    world.run_pass()
    assert world.cluster.stopped == [f"{job_id}-a1"]
    world.run_pass()
    assert world.state(job_id) == (S.PAUSED, 1)
    assert [attempt.message for attempt in world.job(job_id).attempts] == ["paused before it began"]


def test_a_pause_between_claim_and_submit_is_not_lost(world):
    job_id = world.submit()
    world.cluster.before["submit"] = lambda: pause(world.db, job_id)
    world.run_pass()
    world.run_pass()
    world.run_pass()
    assert (world.state(job_id), world.cluster.live()) == ((S.PAUSED, 1), [])


@pytest.mark.parametrize("status", [RayJobStatus.FAILED, None])
def test_a_worker_that_dies_while_its_job_pauses_leaves_it_paused(world, status):
    job_id = world.running()
    pause(world.db, job_id)
    if status is None:
        world.cluster.forget(f"{job_id}-a1")
    else:
        world.status(f"{job_id}-a1", status)
    world.run_pass()
    assert world.path(job_id) == ["queued", "submitting", "running", "pausing", "paused"]
    world.run_pass(100)
    assert len(world.cluster.submitted) == 1


def test_a_service_that_stops_in_order_pauses_what_was_pausing(world):
    job_id = world.running()
    pause(world.db, job_id)
    world.controller.release()
    assert world.state(job_id) == (S.PAUSED, 1)


# --- priorities --------------------------------------------------------------------------------------------


def test_a_higher_priority_goes_first_and_stops_nothing(world):
    world.cluster.capacity_value = Capacity(cpus=2, gpus=0)
    first, low, old, large = (world.submit(workers=w) for w in (2, 1, 1, 2))
    world.run_pass()
    change_terms(world.db, low, {"priority": -1})
    change_terms(world.db, large, {"priority": 1})
    world.run_pass()
    assert submitted(world) == [first]
    end(world, first)
    world.run_pass()
    assert submitted(world) == [first, large]  # it was not overtaken by the small ones
    end(world, large)
    world.run_pass()
    assert submitted(world) == [first, large, old, low]


# --- orphans -----------------------------------------------------------------------------------------------


def test_a_process_that_outlives_its_outcome_is_stopped_after_the_grace(world):
    job_id = world.submit()
    world.run_pass()
    token = world.start(f"{job_id}-a1")
    reports.finish(world.db, job_id, token, FAILED)
    world.run_pass()
    world.run_pass(EXIT_GRACE_S)
    assert world.cluster.stopped == []
    world.run_pass(1)
    assert world.cluster.stopped == [f"{job_id}-a1"]
    world.run_pass()
    assert (world.cluster.live(), len(world.cluster.stopped)) == ([], 1)


def test_a_superseded_attempt_that_comes_back_is_stopped(world):
    job_id = world.running()
    world.cluster.forget(f"{job_id}-a1")
    world.run_pass()
    world.start(f"{job_id}-a2")
    world.status(f"{job_id}-a1", RayJobStatus.RUNNING)
    world.run_pass(31)
    assert world.cluster.live() == [f"{job_id}-a2"]
    assert world.state(job_id) == (S.RUNNING, 2)


def test_a_late_submission_of_a_cancelled_job_is_stopped(world):
    """Ray took its time over a submission whose caller had given up."""
    job_id = claimed_but_unknown_to_ray(world)
    jobs.cancel(world.db, job_id)
    world.run_pass()
    assert world.state(job_id) == (S.CANCELLED, 1)
    world.status(f"{job_id}-a1", RayJobStatus.PENDING)
    world.run_pass(31)
    assert world.cluster.live() == []


def test_what_others_run_on_the_cluster_is_left_alone(world):
    for submission_id in ("raysubmit-1", "job-0123456789abcdef-a1"):
        world.status(submission_id, RayJobStatus.RUNNING)
    job_id = world.running()
    world.run_pass(3600)
    assert world.cluster.stopped == []
    assert world.cluster.live() == sorted(["raysubmit-1", "job-0123456789abcdef-a1", f"{job_id}-a1"])


# --- room --------------------------------------------------------------------------------------------------


def submitted(world):
    return [job_id for _, job_id, _ in world.cluster.submitted]


def end(world, job_id):
    reports.finish(world.db, job_id, world.start(f"{job_id}-a1"), FAILED)
    world.status(f"{job_id}-a1", RayJobStatus.FAILED)


def test_jobs_wait_for_free_workers_in_the_order_of_their_submission(world):
    world.cluster.capacity_value = Capacity(cpus=4, gpus=0)
    one, large, small, last = (world.submit(workers=w) for w in (2, 4, 2, 2))
    world.run_pass()
    world.run_pass()
    assert submitted(world) == [one]  # `small` would fit, but `large` would wait for ever
    end(world, one)
    world.run_pass()
    assert submitted(world) == [one, large]
    end(world, large)
    world.run_pass()
    assert submitted(world) == [one, large, small, last]
    assert world.controller.capacity == Capacity(cpus=4, gpus=0)


def test_a_job_larger_than_the_cluster_is_passed_over_until_it_grows(world):
    world.cluster.capacity_value = Capacity(cpus=2, gpus=0)
    large, small = world.submit(workers=4), world.submit(workers=2)
    world.run_pass()
    assert submitted(world) == [small]
    assert world.state(large) == (S.QUEUED, 0)
    world.cluster.capacity_value = Capacity(cpus=6, gpus=0)
    world.run_pass()
    assert submitted(world) == [small, large]


def test_gpus_count_where_there_are_more_of_them(world):
    world.cluster.capacity_value = Capacity(cpus=1, gpus=4)
    job_id = world.submit(workers=4, device="cuda")
    world.run_pass()
    assert submitted(world) == [job_id]


def test_a_job_being_cancelled_holds_its_workers_until_it_has_ended(world):
    world.cluster.capacity_value = Capacity(cpus=2, gpus=0)
    first, second = world.running(workers=2), world.submit(workers=1)
    jobs.cancel(world.db, first)
    world.run_pass()
    assert submitted(world) == [first]
    world.run_pass()
    assert submitted(world) == [first, second]


def test_a_lost_job_comes_before_younger_ones(world):
    world.cluster.capacity_value = Capacity(cpus=2, gpus=0)
    first, _ = world.running(workers=2), world.submit(workers=2)
    world.status(f"{first}-a1", RayJobStatus.FAILED)
    world.run_pass()
    assert submitted(world) == [first, first]


def test_a_cluster_without_a_node_takes_nothing(world):
    world.cluster.capacity_value = Capacity(cpus=0, gpus=0)
    job_id = world.submit()
    world.run_pass()
    assert world.state(job_id) == (S.QUEUED, 0)


# --- the loop ------------------------------------------------------------------------------------------------


class Loop:
    """A controller's thread, of which each pass is awaited."""

    def __init__(self, world: World) -> None:
        self.began = threading.Semaphore(0)
        self.lease = Lease(world.db, "home")
        self.controller = world.make_controller(lease=self.lease, poll_seconds=3600)
        run_pass = self.controller.run_pass

        def counted():
            self.began.release()
            run_pass()

        self.controller.run_pass = counted

    def __enter__(self):
        self.controller.start()
        self.await_pass()
        return self

    def __exit__(self, *_):
        self.controller.stop()  # waits for the pass at hand
        self.lease.close()

    def await_pass(self):
        assert self.began.acquire(timeout=30)

    def wake(self):
        self.controller.wake()
        self.await_pass()


def test_a_wake_does_not_wait_for_the_poll(world):
    with Loop(world) as loop:
        job_id = world.submit()
        loop.wake()
    assert submitted(world) == [job_id]
    assert loop.controller.trouble is None
    assert loop.controller.capacity == Capacity(cpus=8, gpus=0)
    assert loop.controller.dashboard_url == "http://fake-ray.invalid"


def test_ray_out_of_reach_is_a_flag(world, caplog):
    world.cluster.unreachable = True
    with caplog.at_level(logging.WARNING), Loop(world) as loop:
        loop.wake()
        loop.wake()
    assert loop.controller.trouble == "No answer from Ray (the fake was told so)."
    assert loop.controller.capacity is None
    assert [r.message for r in caplog.records if r.name == "service.cluster.controller"] == [loop.controller.trouble]
    world.cluster.unreachable = False
    with Loop(world) as loop:
        pass
    assert loop.controller.trouble is None


def test_the_loop_leaves_it_to_the_store_to_tell_of_a_database_that_is_away(world, caplog):
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    with (
        patch.object(controller, "jobs_in", side_effect=OperationalError("SELECT 1", {}, full)),
        caplog.at_level(logging.INFO),
        Loop(world) as loop,
    ):
        loop.wake()
    assert loop.controller.trouble == "the disk of the database is full; make room there"
    assert not [record for record in caplog.records if record.exc_info]


def test_the_loop_outlives_what_goes_wrong_and_says_so(world):
    with patch.object(controller, "jobs_in", side_effect=OSError("disk is full")), Loop(world) as loop:
        pass
    assert loop.controller.trouble == "OSError: disk is full"
    with Loop(world) as loop:
        world.cluster.fault = (0, False, OSError("disk is full"))
        loop.wake()
        loop.wake()
    assert loop.controller.trouble is None


def test_a_job_that_cannot_be_looked_at_holds_up_no_other(world):
    world.cluster.capacity_value = Capacity(cpus=3.0, gpus=0.0)
    first, second = world.running(), world.running()
    for job_id in (first, second):
        world.status(f"{job_id}-a1", RayJobStatus.FAILED, "exit code 1")
    world.cluster.before["nodes_of"] = lambda: [][0]  # of the first that it is asked for
    third = world.submit()
    with pytest.raises(IndexError) as failure:
        world.run_pass()
    assert failure.value.__notes__ == [f"while looking at job {first}"]
    assert [world.state(job_id) for job_id in (first, second, third)] == [
        (S.RUNNING, 1),
        (S.SUBMITTING, 2),
        (S.SUBMITTING, 1),
    ]
    world.run_pass()
    assert world.state(first)[0] is not S.RUNNING


# --- all faults in any order ---------------------------------------------------------------------------------


@dataclass
class RayJob:
    """The process of one submission, as far as the service can tell."""

    ticket: str
    token: str | None = None
    epochs: int = 0
    outcome: Outcome | None = None


class Faults(RuleBasedStateMachine):
    """Users and workers act, Ray and the controller fail, in any order. However that went, all ends well."""

    def __init__(self, db: Store, clock: Clock, check_design: Callable[[Store], None]) -> None:
        super().__init__()
        self.world, self.check_design = World(db, clock), check_design
        self.job_ids: list[str] = [self.world.submit(workers=2)]
        self.processes: dict[str, RayJob] = {}  # of each submission that Ray took
        self.sessions = count(2)
        self.ended: dict[str, str] = {}  # terminal state of each job that has one
        self.seen_ended: dict[str, datetime] = {}  # Ray jobs that live though their attempt has ended, and since when
        self._pass(0)

    def teardown(self) -> None:
        """Everybody behaves from now on: each job ends within as many passes as it can have attempts, and a few."""
        cluster = self.world.cluster
        cluster.capacity_value = Capacity(cpus=8, gpus=0)
        for _ in range(7):
            for job_id in self.job_ids:
                if self.world.state(job_id)[0] is S.PAUSED:
                    resume(self.world.db, job_id)
            self.world.run_pass(31)
            self._meet_new_processes()
            for submission_id in cluster.live():
                self._live_on(submission_id)
        self.world.run_pass(31)
        self.terminal_states_stay()
        assert self.ended.keys() == set(self.job_ids)
        assert cluster.live() == []
        self.check_design(self.world.db)
        with self.world.db.write() as session:
            session.execute(delete(Job))

    # users

    @precondition(lambda self: len(self.job_ids) < 4)
    @rule(workers=st.integers(1, 3))
    def submit(self, workers):
        self.job_ids.append(self.world.submit(workers=workers))

    @precondition(lambda self: self.job_ids)
    @rule(data=st.data())
    def cancel(self, data):
        job_id = data.draw(st.sampled_from(self.job_ids))
        if self.world.state(job_id)[0] in (S.SUCCEEDED, S.FAILED):
            with pytest.raises(StateConflict):
                jobs.cancel(self.world.db, job_id)
        else:
            jobs.cancel(self.world.db, job_id)

    @precondition(lambda self: self.job_ids)
    @rule(data=st.data(), ask=st.sampled_from([pause, resume]))
    def pause_or_resume(self, data, ask):
        job_id = data.draw(st.sampled_from(self.job_ids))
        state = self.world.state(job_id)[0]
        refused = state in (*TERMINAL, S.CANCELLING) or (ask is resume and state is S.PAUSING)
        with pytest.raises(StateConflict) if refused else nullcontext():
            ask(self.world.db, job_id)

    # Ray

    @rule(cpus=st.sampled_from([4, 2, 1, 0]))
    def resize(self, cpus):
        self.world.cluster.capacity_value = Capacity(cpus=cpus, gpus=0)

    @precondition(lambda self: self._live())
    @rule(data=st.data(), end=st.sampled_from([RayJobStatus.FAILED, RayJobStatus.SUCCEEDED, None]))
    def a_process_ends_or_vanishes(self, data, end):
        submission_id = data.draw(st.sampled_from(self._live()))
        if end is None:
            self.world.cluster.forget(submission_id)
        else:
            self.world.status(submission_id, end)

    @rule()
    def ray_restarts_and_knows_nothing(self):
        self.world.cluster.restart(f"session-{next(self.sessions)}")

    # workers; one whose Ray job is gone may still have something to say

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), what=st.sampled_from(["start", "report", "succeed", "fail", "pause"]))
    def a_worker_speaks(self, data, what):
        self._speak(data.draw(st.sampled_from(sorted(self.processes))), what)

    def _speak(self, submission_id, what):
        process, job_id = self.processes[submission_id], job_of(submission_id)
        before = self.world.state(job_id)
        live = before[0] in (S.RUNNING, S.PAUSING) and before[1] == int(submission_id.rpartition("-a")[2])
        live = live and self.world.job(job_id).last_attempt.ended_at is None
        refused = False
        try:
            if what == "start":
                process.token = reports.exchange_ticket(self.world.db, job_id, process.ticket).report_token
            elif process.token is not None and what == "report":
                self.world.report(job_id, process.token)
                process.epochs = 1
            elif process.token is not None:
                outcome = {"succeed": SUCCEEDED, "fail": FAILED, "pause": PAUSED}[what]
                reports.finish(self.world.db, job_id, process.token, outcome)
                process.outcome = outcome
        except ForerunError:
            refused = True
        after = self.world.state(job_id)
        if refused:
            assert after == before
            unasked = what == "pause" and before[0] is not S.PAUSING
            assert not live or what == "start" or (what == "succeed" and not process.epochs) or unasked
        elif what == "report" and process.token is not None:
            assert live
        elif what != "start":
            assert live or after == before  # the same outcome again is fine

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def a_worker_does_its_work(self, data):
        self._live_on(data.draw(st.sampled_from(self._live())))

    def _live_on(self, submission_id):
        """To the end, as workers/job.py does."""
        process, job_id = self.processes[submission_id], job_of(submission_id)
        status = RayJobStatus.FAILED
        try:
            if process.token is None:
                process.token = reports.exchange_ticket(self.world.db, job_id, process.ticket).report_token
            if process.outcome is None:
                pauses = self.world.report(job_id, process.token)
                outcome = PAUSED if pauses else SUCCEEDED
                reports.finish(self.world.db, job_id, process.token, outcome)
                process.outcome = outcome
            status = RayJobStatus.FAILED if process.outcome is FAILED else RayJobStatus.SUCCEEDED
        except StaleAttempt:
            pass
        self.world.status(submission_id, status)

    # the controller

    @rule(seconds=st.sampled_from([31, 11, 0]), start=st.booleans())
    def a_pass(self, seconds, start):
        self._pass(seconds)
        for submission_id in self._live() if start else ():
            self._speak(submission_id, "start")

    @precondition(lambda self: self._live())
    @rule(data=st.data(), seconds=st.sampled_from([31, 11, 0]))
    def an_attempt_is_lost(self, data, seconds):
        """As above, and noticed: else few examples get to a third attempt."""
        submission_id = data.draw(st.sampled_from(self._live()))
        self._speak(submission_id, "start")
        self.world.status(submission_id, RayJobStatus.FAILED)
        self._pass(seconds)

    @rule(
        calls=st.integers(0, 6),
        takes_effect=st.booleans(),
        error=st.sampled_from([NO_ANSWER, Died()]),
        seconds=st.sampled_from([0, 11]),
    )
    def a_pass_that_fails(self, calls, takes_effect, error, seconds):
        self.world.cluster.fault = (calls, takes_effect, error)
        self._pass(seconds)
        self.world.cluster.fault = None

    def _pass(self, seconds):
        world = self.world
        with world.db.read() as session:
            attempts = dict(session.execute(select(Job.id, Job.attempt)).all())
        stops = len(world.cluster.stopped)
        try:
            world.run_pass(seconds)
        except ClusterUnreachable:
            return
        except Died:
            world.restart()
            self.seen_ended.clear()
            return
        finally:
            self._meet_new_processes()
        with world.db.read() as session:
            alive = jobs_in(session, [state for state in S if state not in TERMINAL])
        room = world.cluster.capacity_value.cpus
        held = sum(job.workers for job in alive if job.state in HOLDS_WORKERS)
        waiting = [job for job in alive if job.state in WAITING and job.workers <= room]
        assert not waiting or waiting[0].workers > room - held, "the oldest job that can ever fit was left to wait"
        claimed = [job for job in alive if job.attempt > attempts[job.id]]
        assert not claimed or held <= room, "more was claimed than there is room for"
        for job in alive:
            if job.state is S.CANCELLING:  # its process was there a moment ago
                assert job.attempts[-1].submission_id in world.cluster.stopped[stops:]
        for submission_id in self._live():
            attempt = world.job(job_of(submission_id)).attempts[int(submission_id.rpartition("-a")[2]) - 1]
            if attempt.ended_at is not None:
                assert attempt.reason is None, "an orphan that was superseded"
                since = self.seen_ended.setdefault(submission_id, world.clock.time)
                assert world.clock.time - since <= EXIT_GRACE_S * SECOND, "an orphan"

    def _meet_new_processes(self):
        tickets = {name: environment["FORERUN_TICKET"] for name, _, environment in self.world.cluster.submitted}
        for submission_id, ticket in tickets.items():  # the last of each: Ray may have forgotten one, and got it again
            if submission_id not in self.processes or self.processes[submission_id].ticket != ticket:
                self.processes[submission_id] = RayJob(ticket)

    def _live(self):
        return sorted(s.submission_id for s in self.world.cluster._submissions.values() if s.status in LIVE)

    # what holds at any time

    @invariant()
    def at_most_one_submission_of_a_job_lives(self):
        owners = [job_of(submission_id) for submission_id in self._live()]
        assert len(owners) == len(set(owners))

    @invariant()
    def terminal_states_stay(self):
        with self.world.db.read() as session:
            ended = dict(session.execute(select(Job.id, Job.state).where(Job.state.in_(TERMINAL))).all())
        assert self.ended.items() <= ended.items()
        self.ended = ended


def test_all_faults_in_any_order(sqlite_store, clock, invariants, monkeypatch):
    numbers = count(1)
    monkeypatch.setattr(jobs.secrets, "token_hex", lambda _: f"{next(numbers):016x}")  # ids in a repeatable order
    run_state_machine_as_test(
        lambda: Faults(sqlite_store, clock, invariants),
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
