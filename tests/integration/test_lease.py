"""Several services on one database, SQLite and PostgreSQL: who leads, who takes over when, what becomes of the jobs.

Every clock is the test's: the database's, which may jump, and the one of the machines that does not.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete

from service.cluster.base import ClusterId, RayJobStatus
from service.cluster.controller import Controller
from service.cluster.fake import FakeCluster
from service.cluster.lease import Lease, NotLeader
from service.errors import ClusterUnreachable, StaleAttempt
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.store import clock as database_clock
from service.store.engine import Store
from service.store.jobs import get_job
from service.store.leader import get_leader
from service.store.records import Leader
from service.store.tables import Job
from service.wire.states import EndReason
from service.wire.worker import Outcome
from tests.databases import wipe
from tests.integration.jobs_in_sql import S, job_of, state_of, submit, until_somebody_waits_for_a_lock
from tests.unit.service.reports import epoch

pytest_plugins = ["tests.databases"]

TWO_HOURS = 7200.0


class Clocks:
    """The database's clock, and one that does not jump."""

    def __init__(self) -> None:
        self.database, self.steady = datetime(2026, 1, 1, tzinfo=UTC), 0.0

    def monotonic(self) -> float:
        return self.steady

    def pass_by(self, seconds: float) -> None:
        self.steady += seconds
        self.jump(seconds)

    def jump(self, seconds: float) -> None:
        self.database += timedelta(seconds=seconds)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(database_clock, "database_time", lambda _: clocks.database)
    return clocks


def lease_of(store: Store, clocks: Clocks, holder: str) -> Lease:
    return Lease(store, holder, f"http://{holder}:8000", monotonic=clocks.monotonic)


@pytest.fixture
def leases(store: Store, clocks: Clocks) -> tuple[Lease, Lease]:
    return lease_of(store, clocks, "one"), lease_of(store, clocks, "two")


def row(store: Store) -> Leader:
    with store.read() as session:
        return get_leader(session)


def acts(lease: Lease) -> bool:
    """Whether a change of this service goes through."""
    try:
        with lease.store.write():
            return True
    except NotLeader:
        return False


# --- who leads -------------------------------------------------------------------------------------------


def test_the_first_to_look_leads_and_the_second_stands_by(store, leases, clocks):
    one, two = leases
    assert (one.leads, one.leader, acts(one)) == (False, None, False)
    assert (one.keep("own-head s1"), two.keep("own-head s2")) == (True, False)
    assert (one.leads, two.leads) == (True, False)
    assert (acts(one), acts(two)) == (True, False)
    expiry = datetime(2026, 1, 1, 0, 0, 15, tzinfo=UTC)
    leader = Leader("one", 1, "http://one:8000", "own-head s1", expires_at=expiry, standby_seen_at=clocks.database)
    assert row(store) == leader
    assert two.leader == Leader("one", 1, "http://one:8000", "own-head s1", expires_at=expiry, standby_seen_at=None)


def test_a_lease_that_is_renewed_is_not_taken_over(leases, clocks):
    one, two = leases
    one.keep("c")
    for _ in range(40):
        clocks.pass_by(3)
        assert one.renew()
        assert not two.keep("c")


def test_a_renewal_is_written_when_it_is_due(store, leases, clocks):
    one, _ = leases
    one.keep("c")
    written = row(store)
    clocks.pass_by(2.9)
    assert one.keep("c")
    assert row(store) == written
    clocks.pass_by(0.1)
    assert one.keep("c")
    assert row(store).expires_at == clocks.database + timedelta(seconds=15)
    assert one.keep("another")
    assert row(store).cluster == "another"


def test_it_is_taken_over_when_it_has_expired(store, leases, clocks):
    one, two = leases
    one.keep("c")
    for _ in range(14):
        clocks.pass_by(1)
        assert not two.keep("d")
    clocks.pass_by(1)
    assert two.keep("d")
    assert (row(store).holder, row(store).fence, row(store).cluster) == ("two", 2, "d")
    assert (acts(one), acts(two)) == (False, True)
    assert not one.renew()
    assert not one.keep("c")
    assert one.leader is not None
    assert one.leader.url == "http://two:8000"


def test_one_that_expired_long_ago_is_watched_before_it_is_taken_over(leases, clocks):
    """The clock may have jumped: it might be renewed in a moment."""
    one, two = leases
    one.keep("c")
    clocks.pass_by(TWO_HOURS)
    assert not two.keep("d")
    clocks.pass_by(5.9)
    assert not two.keep("d")
    clocks.pass_by(0.1)
    assert two.keep("d")


def test_one_that_expired_and_was_not_taken_over_goes_on(store, leases, clocks):
    one, _ = leases
    one.keep("c")
    clocks.pass_by(TWO_HOURS)
    assert acts(one)
    assert one.keep("c")
    assert row(store).fence == 1


def test_one_that_is_given_back_is_taken_over_at_once(store, leases):
    one, two = leases
    one.keep("c")
    two.keep("d")
    one.close()
    assert not one.leads
    assert row(store).holder is None
    assert two.keep("d")
    two.close()
    one.close()  # may be repeated, and gives back nothing of another's
    assert row(store).fence == 2


def test_one_that_was_taken_over_cannot_be_given_back(store, leases, clocks):
    one, two = leases
    one.keep("c")
    two.keep("d")
    clocks.pass_by(15)
    assert two.keep("d")
    one.close()
    assert row(store).holder == "two"


def test_a_service_that_starts_anew_takes_up_its_own_lease_at_once(store, leases, clocks):
    one, two = leases
    one.keep("c")
    again = lease_of(store, clocks, "one")
    assert again.keep("c")
    assert (acts(one), acts(again)) == (False, True)
    clocks.pass_by(3)
    assert not one.keep("c")  # with this name or not: what was lost is not taken back
    assert not two.keep("d")
    assert row(store).fence == 2


def test_a_head_ends_before_its_lease_where_another_could_take_over(leases, clocks):
    one, two = leases
    assert one.must_end_within == 0.0
    one.keep("c")
    assert one.must_end_within is None
    two.keep("d")
    clocks.pass_by(3)
    one.renew()
    assert one.must_end_within == 8.0
    clocks.pass_by(59)
    one.renew()
    assert one.must_end_within == 8.0
    clocks.pass_by(1)
    assert one.must_end_within is None


# --- clocks that jump --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [TWO_HOURS, -TWO_HOURS])
def test_a_clock_that_jumps_takes_nothing_from_who_leads(leases, clocks, seconds):
    one, two = leases
    one.keep("c")
    for step in range(30):
        clocks.pass_by(1)
        assert not two.keep("d")
        if step == 10:
            clocks.jump(seconds)
        if step % 3 == 2:
            assert one.renew()


def test_a_clock_that_jumps_back_keeps_nobody_from_leading(leases, clocks):
    one, two = leases
    one.keep("c")
    clocks.jump(-TWO_HOURS)
    assert not two.keep("d")
    clocks.pass_by(14)
    assert not two.keep("d")
    clocks.pass_by(1)
    assert two.keep("d")


# --- the fence -----------------------------------------------------------------------------------------------


def test_what_a_superseded_leader_writes_is_refused_and_changes_nothing(store, leases, clocks):
    one, two = leases
    waiting, running, cancelling = (submit(store) for _ in range(3))
    one.keep("c")
    for job_id in (waiting, running, cancelling):
        assert jobs.claim_next(one.store).job_id == job_id
    jobs.attempt_interrupted(one.store, waiting, 1)
    jobs.cancel(store, cancelling)
    two.keep("d")
    clocks.pass_by(15)
    two.keep("d")
    for late in (
        lambda: jobs.claim_next(one.store),
        lambda: jobs.reissue_ticket(one.store, running, 1),
        lambda: jobs.attempt_lost(one.store, running, 1, "late", max_attempts=1),
        lambda: jobs.attempt_interrupted(one.store, running, 1),
        lambda: jobs.confirm_cancelled(one.store, cancelling),
        lambda: jobs.keep_log(one.store, f"{running}-a1", "late"),
    ):
        with pytest.raises(NotLeader):
            late()
    states = [state_of(store, job_id) for job_id in (waiting, running, cancelling)]
    assert states == [S.RECOVERING, S.SUBMITTING, S.CANCELLING]
    assert jobs.claim_next(two.store).job_id == waiting


def test_postgresql_a_takeover_waits_for_a_change_that_is_under_way(postgres_store, clocks):
    one, two = lease_of(postgres_store, clocks, "one"), lease_of(postgres_store, clocks, "two")
    job_id = submit(postgres_store)
    one.keep("c")
    two.keep("d")
    clocks.pass_by(15)
    with ThreadPoolExecutor(1) as pool:
        with one.store.write() as session:
            taken = pool.submit(two.keep, "d")
            until_somebody_waits_for_a_lock(postgres_store)
            get_job(session, job_id, lock=True)
        assert taken.result(30)
    assert not acts(one)


class Leases(RuleBasedStateMachine):
    """Services look, renew, are started anew and end, while time passes and the database's clock jumps."""

    NAMES = ("one", "two", "three")

    def __init__(self, store: Store, clocks: Clocks) -> None:
        super().__init__()
        wipe(store)
        self.store, self.clocks = store, clocks
        self.leases = {name: lease_of(store, clocks, name) for name in self.NAMES}
        self.row, self.renewed = row(store), clocks.steady

    @rule(name=st.sampled_from(NAMES))
    def look(self, name):
        assert self.leases[name].keep(name) == self.leases[name].leads
        self.compare(name)

    @rule(name=st.sampled_from(NAMES))
    def renew(self, name):
        self.leases[name].renew()
        self.compare(name)

    def compare(self, name):
        """A lease is renewed by its holder, or taken over when nobody has renewed it for long enough."""
        before, after = self.row, row(self.store)
        if after.fence != before.fence:
            assert (after.holder, after.fence) == (name, before.fence + 1)
            assert before.holder in (None, name) or self.clocks.steady - self.renewed >= 6
        else:
            assert after.holder == before.holder
        if (after.fence, after.expires_at) != (before.fence, before.expires_at):
            self.renewed = self.clocks.steady
        self.row = after

    @rule(name=st.sampled_from(NAMES))
    def start_anew(self, name):
        self.leases[name] = lease_of(self.store, self.clocks, name)

    @rule(name=st.sampled_from(NAMES))
    def end(self, name):
        self.leases[name].close()
        self.row = row(self.store)

    @rule(seconds=st.sampled_from([1.0, 3.0, 6.0, 15.0]))
    def time_passes(self, seconds):
        self.clocks.pass_by(seconds)

    @rule(seconds=st.sampled_from([TWO_HOURS, -TWO_HOURS]))
    def the_clock_jumps(self, seconds):
        self.clocks.jump(seconds)

    @invariant()
    def at_most_one_acts(self):
        acting = [name for name, lease in self.leases.items() if acts(lease)]
        assert acting in ([], [self.row.holder])


def test_at_most_one_of_many_acts(store, clocks):
    run_state_machine_as_test(
        lambda: Leases(store, clocks),
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate],  # add Phase.shrink to look into a failure: it takes minutes
        ),
    )


# --- services with their controllers -------------------------------------------------------------------------


class OwnHead(FakeCluster):
    """A Ray head that ends with its service, or when that has not spoken in time."""

    sessions = count(1)

    def __init__(self, clocks: Clocks) -> None:
        super().__init__(own=True, session=f"s{next(self.sessions)}")
        self.clocks, self.deadline = clocks, None

    def hold(self, seconds: float | None) -> None:
        super().hold(seconds)
        self.deadline = None if seconds is None else self.clocks.steady + seconds
        self.end_if_due()

    def end_if_due(self) -> None:
        if self.deadline is not None and self.clocks.steady >= self.deadline:
            self.deadline = None
            self.restart(f"s{next(self.sessions)}")

    def kill(self) -> None:
        self.deadline = self.clocks.steady
        self.end_if_due()


@dataclass
class Service:
    """A service without its API. `max_attempts` is 1: what counts against a job ends it."""

    store: Store
    clocks: Clocks
    name: str
    cluster: FakeCluster
    frozen: bool = False
    lease: Lease = field(init=False)
    controller: Controller = field(init=False)

    def __post_init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        self.lease = lease_of(self.store, self.clocks, self.name)
        self.controller = Controller(
            self.store, self.cluster, {}, lease=self.lease, max_attempts=1, monotonic=self.clocks.monotonic
        )

    def run_pass(self) -> None:
        self.controller.run_pass()

    def renew(self) -> None:
        """As its thread does."""
        if self.lease.leads and not self.frozen:
            self.lease.renew()
            self.cluster.hold(self.lease.must_end_within)

    def stop(self) -> None:
        """In order, as `python -m api` does it."""
        self.controller.release()
        if isinstance(self.cluster, OwnHead):
            self.cluster.kill()
        self.lease.close()


def two_services(store: Store, clocks: Clocks) -> tuple[Service, Service]:
    """Each with a Ray head of its own; the first leads."""
    one, two = (Service(store, clocks, name, OwnHead(clocks)) for name in ("one", "two"))
    one.run_pass()
    two.run_pass()
    return one, two


def finish(store: Store, cluster: FakeCluster, submission_id: str) -> None:
    """What a Ray job does from its start to its end."""
    job_id = submission_id.rpartition("-a")[0]
    [ticket] = [env["FORERUN_TICKET"] for name, _, env in cluster.submitted if name == submission_id]
    try:
        token = reports.exchange_ticket(store, job_id, ticket).report_token
        reports.record_epoch(store, job_id, token, epoch(1))
        reports.finish(store, job_id, token, Outcome(state="succeeded"))
        cluster.set_status(submission_id, RayJobStatus.SUCCEEDED)
    except StaleAttempt:
        cluster.set_status(submission_id, RayJobStatus.FAILED)


def test_a_second_service_leaves_the_jobs_of_the_first_alone(store, clocks):
    one, two = two_services(store, clocks)
    job_ids = [submit(store, epochs=1) for _ in range(3)]  # at either
    for _ in range(10):
        clocks.pass_by(3)
        one.renew()
        one.run_pass()
        two.run_pass()
    assert [state_of(store, job_id) for job_id in job_ids] == [S.SUBMITTING] * 3
    assert (one.cluster.live(), two.cluster.live()) == (sorted(f"{job_id}-a1" for job_id in job_ids), [])
    for submission_id in one.cluster.live():
        finish(store, one.cluster, submission_id)
    one.run_pass()
    assert [state_of(store, job_id) for job_id in job_ids] == [S.SUCCEEDED] * 3
    assert one.controller.leadership.leads
    assert (two.controller.leadership.leads, two.controller.leadership.url) == (False, "http://one:8000")


def test_a_second_service_takes_a_cancel_of_a_job_of_the_first(store, clocks):
    one, two = two_services(store, clocks)
    job_id = submit(store)
    one.run_pass()
    jobs.cancel(store, job_id)
    two.run_pass()
    assert state_of(store, job_id) is S.CANCELLING
    one.run_pass()
    one.run_pass()
    assert (state_of(store, job_id), one.cluster.live()) == (S.CANCELLED, [])


def test_the_log_of_a_job_on_the_leaders_own_head_is_asked_of_the_leader(store, clocks):
    one, two = two_services(store, clocks)
    job_id = submit(store)
    one.run_pass()
    one.cluster.driver_logs[f"{job_id}-a1"] = "it trains\n"
    assert one.controller.logs(f"{job_id}-a1") == "it trains\n"
    with pytest.raises(ClusterUnreachable, match="ask http://one:8000"):
        two.controller.logs(f"{job_id}-a1")


def test_when_the_leader_is_killed_the_other_takes_its_jobs_over_at_no_cost(store, clocks):
    one, two = two_services(store, clocks)
    running, queued, cancelling = submit(store, epochs=1), submit(store, epochs=1), submit(store, epochs=1)
    one.run_pass()
    jobs.cancel(store, cancelling)
    one.cluster.kill()
    for _ in range(15):
        assert state_of(store, running) is S.SUBMITTING
        two.run_pass()
        clocks.pass_by(1)
    two.run_pass()
    two.run_pass()
    assert state_of(store, cancelling) is S.CANCELLED
    assert two.cluster.live() == sorted([f"{running}-a2", f"{queued}-a2"])
    for submission_id in two.cluster.live():
        finish(store, two.cluster, submission_id)
    assert state_of(store, running) is state_of(store, queued) is S.SUCCEEDED
    first = job_of(store, running).attempts[0]
    assert (first.reason, first.message) == (EndReason.CLUSTER_LOST, "the Ray head that it ran under is gone")

    one.start_anew()
    one.run_pass()
    assert not one.controller.leadership.leads


def test_when_the_leader_ends_in_order_the_other_takes_over_at_once(store, clocks):
    one, two = two_services(store, clocks)
    job_id = submit(store, epochs=1)
    one.run_pass()
    one.stop()
    two.run_pass()
    assert two.cluster.live() == [f"{job_id}-a2"]
    assert [attempt.reason for attempt in job_of(store, job_id).attempts] == [EndReason.SERVICE_STOPPED, None]


def test_a_service_that_stands_by_ends_in_order_and_changes_nothing(store, clocks):
    one, two = two_services(store, clocks)
    job_id = submit(store)
    one.run_pass()
    two.stop()
    assert state_of(store, job_id) is S.SUBMITTING
    assert acts(one.lease)


def test_a_leader_that_was_superseded_lets_nothing_run_on_its_own_head(store, clocks):
    one, two = two_services(store, clocks)
    job_id = submit(store)
    one.run_pass()
    clocks.pass_by(3)
    one.renew()
    assert one.cluster.deadline == clocks.steady + 8  # told its head, should it freeze now
    for _ in range(16):
        two.run_pass()
        clocks.pass_by(1)
        one.cluster.end_if_due()
    two.run_pass()
    assert (one.cluster.live(), two.cluster.live()) == ([], [f"{job_id}-a2"])
    one.cluster.set_status(f"{job_id}-a1", RayJobStatus.PENDING)  # a submit that was under way
    one.run_pass()
    assert one.cluster.held[-1] == 0.0
    one.cluster.set_status(f"{job_id}-a1", RayJobStatus.PENDING)
    one.run_pass()
    assert one.cluster.live() == []


def test_a_shared_cluster_s_jobs_are_adopted(store, clocks):
    shared = FakeCluster()
    one, two = (Service(store, clocks, name, shared) for name in ("one", "two"))
    one.run_pass()
    two.run_pass()
    job_id = submit(store, epochs=1)
    one.run_pass()
    for _ in range(16):
        two.run_pass()
        clocks.pass_by(1)
    two.run_pass()
    assert two.lease.leads
    one.run_pass()  # superseded: it leaves alone what is not its own
    assert (shared.live(), shared.stopped) == ([f"{job_id}-a1"], [])
    finish(store, shared, f"{job_id}-a1")
    assert state_of(store, job_id) is S.SUCCEEDED
    assert job_of(store, job_id).attempt == 1


def test_a_shared_cluster_that_was_started_anew_costs_no_attempt(store, clocks):
    shared = FakeCluster()
    one = Service(store, clocks, "one", shared)
    job_id = submit(store)
    one.run_pass()
    shared.restart("session-2")
    one.run_pass()
    one.run_pass()
    assert shared.live() == [f"{job_id}-a2"]
    assert job_of(store, job_id).attempts[0].reason is EndReason.CLUSTER_LOST


def test_an_attempt_on_a_cluster_out_of_sight_is_not_started_twice(store, clocks, caplog):
    """The setting names another cluster than before: the old one may still train it."""
    one = Service(store, clocks, "one", FakeCluster())
    job_id = submit(store)
    one.run_pass()
    elsewhere, one.cluster = one.cluster, FakeCluster(session="session-9")
    one.cluster.id = ClusterId("http://another:8265", "session-9")
    one.start_anew()
    for _ in range(3):
        one.run_pass()
        clocks.pass_by(3600)
    assert state_of(store, job_id) is S.SUBMITTING
    assert one.cluster.live() == []
    told = [r.getMessage() for r in caplog.records if "left alone" in r.getMessage()]
    assert told == [
        f"job {job_id}: attempt 1 was submitted to the cluster http://fake-ray.invalid session-1 and is left alone "
        "until FORERUN_RAY_ADDRESS names that again or the job is cancelled"
    ]
    one.controller.release()  # nor when the service ends
    assert state_of(store, job_id) is S.SUBMITTING
    jobs.cancel(store, job_id)
    one.run_pass()
    assert state_of(store, job_id) is S.CANCELLED
    assert elsewhere.live() == [f"{job_id}-a1"]


class Services(RuleBasedStateMachine):
    """Three services, two with a head of their own, are killed, frozen, stopped and started anew in any order, while
    the database's clock jumps. No job is lost, doubled, or given up."""

    NAMES = ("one", "two", "three")

    def __init__(self, store: Store, clocks: Clocks, check_design: Callable[[Store], None]) -> None:
        super().__init__()
        wipe(store)
        self.store, self.clocks, self.check_design = store, clocks, check_design
        shared = FakeCluster()
        clusters = (OwnHead(clocks), OwnHead(clocks), shared)
        self.services = {n: Service(store, clocks, n, c) for n, c in zip(self.NAMES, clusters, strict=True)}
        self.job_ids = [submit(store, epochs=1)]
        for service in self.services.values():
            service.run_pass()

    def teardown(self) -> None:
        for service in self.services.values():
            service.frozen = False
        for _ in range(8):
            self.time_passes(6.0)
            for name in self.NAMES:
                self.run_pass(name)
            for service in self.services.values():
                for submission_id in service.cluster.live():
                    finish(self.store, service.cluster, submission_id)
        left = {job_id: state_of(self.store, job_id) for job_id in self.job_ids}
        # what was submitted to the shared cluster is out of sight of a leader that has a head of its own, and goes on
        assert all(state is S.SUCCEEDED for state in left.values()), left
        self.check_design(self.store)
        with self.store.write() as session:
            session.execute(delete(Job))

    @precondition(lambda self: len(self.job_ids) < 4)
    @rule()
    def submit(self):
        self.job_ids.append(submit(self.store, epochs=1))

    @rule(name=st.sampled_from(NAMES))
    def run_pass(self, name):
        if not self.services[name].frozen:
            self.services[name].run_pass()

    @rule(data=st.data())
    def a_job_does_its_work(self, data):
        live = [(service, one) for service in self.services.values() for one in service.cluster.live()]
        if live:
            service, submission_id = data.draw(st.sampled_from(live))
            finish(self.store, service.cluster, submission_id)

    @rule(name=st.sampled_from(NAMES))
    def kill(self, name):
        """And start it anew."""
        service = self.services[name]
        if isinstance(service.cluster, OwnHead):
            service.cluster.kill()
        service.frozen = False
        service.start_anew()

    @rule(name=st.sampled_from(NAMES))
    def stop_in_order(self, name):
        if not self.services[name].frozen:
            self.services[name].stop()
            self.services[name].start_anew()

    @rule(name=st.sampled_from(NAMES))
    def freeze(self, name):
        """One that leads has looked whether others are there."""
        self.services[name].renew()
        self.services[name].frozen = True

    @rule(name=st.sampled_from(NAMES))
    def thaw(self, name):
        self.services[name].frozen = False

    @rule(seconds=st.sampled_from([3.0, 6.0, 18.0]))
    def time_passes(self, seconds):
        for _ in range(int(seconds / 3)):
            self.clocks.pass_by(3)
            for service in self.services.values():
                if isinstance(service.cluster, OwnHead):
                    service.cluster.end_if_due()
                service.renew()

    @rule(seconds=st.sampled_from([TWO_HOURS, -TWO_HOURS]))
    def the_clock_jumps(self, seconds):
        self.clocks.jump(seconds)

    @invariant()
    def no_job_runs_twice(self):
        live = [one for service in self.services.values() for one in service.cluster.live()]
        owners = [submission_id.rpartition("-a")[0] for submission_id in live]
        assert len(owners) == len(set(owners)), live

    @invariant()
    def no_job_is_given_up(self):
        assert not [job_id for job_id in self.job_ids if state_of(self.store, job_id) is S.FAILED]


def test_services_end_in_any_order_and_every_job_succeeds_once(store, clocks, invariants):
    run_state_machine_as_test(
        lambda: Services(store, clocks, invariants),
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate],
        ),
    )
