"""Jobs, one or two services and Ray clusters in memory, with every fault in any order: what DESIGN.md calls invariants
holds after every step, and when everybody behaves again every job ends.

`FORERUN_EXAMPLES=2000 pytest -m long tests/unit/service/cluster/test_state_machine.py` looks longer.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.cluster.base import Capacity
from service.cluster.controller import EXIT_GRACE_S, Controller
from service.errors import ForerunError, IdempotencyConflict, StaleAttempt, StateConflict
from service.jobs import backoff
from service.jobs import lifecycle as jobs
from service.jobs.deletion import delete_job
from service.jobs.pause import pause, resume
from service.jobs.reasons import Sight, look_at_queue, reason_of
from service.jobs.retry import retry
from service.jobs.submit import submit_job
from service.jobs.terms import Terms, change_terms
from service.spec.job import JobSpec
from service.store import clock as database_clock
from service.store.engine import DatabaseError, Store
from service.store.jobs import jobs_in
from service.wire.states import HOLDS_WORKERS, TERMINAL, WAITING, EndReason, JobState
from tests.clocks import Clocks
from tests.databases import wipe
from tests.unit.service.cluster.simulation import (
    ENDS,
    FAILED,
    MAX_ATTEMPTS,
    PAUSED,
    STEP_S,
    SUCCEEDED,
    FaultyStore,
    Interruptions,
    Point,
    Ray,
    Service,
    Worker,
    death,
    trouble,
)
from tests.unit.service.cluster.snapshot import Snapshot, read_snapshot

pytest_plugins = ["tests.databases"]

S = JobState
ENDING = (*TERMINAL, S.CANCELLING)
MOST_JOBS = 5
EXAMPLES = int(os.environ.get("FORERUN_EXAMPLES", "500"))


@cache
def spec(workers: int, epochs: int) -> JobSpec:
    document = {"model": "lenet5", "dataset": "digits", "epochs": epochs, "workers": workers, "methods": ["fixed"]}
    return JobSpec.model_validate(document)


class Everything(RuleBasedStateMachine):
    """Users and workers act; services, Ray, the database and the clocks fail."""

    def __init__(self, db: FaultyStore, clocks: Clocks, storage: Path, check_design: Callable[[Store], None]) -> None:
        super().__init__()
        db.interruptions.cancel()
        wipe(db)
        shutil.rmtree(storage, ignore_errors=True)
        storage.mkdir()
        clocks.reset()
        self.db, self.clocks, self.storage, self.check_design = db, clocks, storage, check_design
        self.raw = sqlite3.connect(db.file)
        self.worker = Worker(db, self.recorded)
        self.job_ids: set[str] = set()  # accepted, and not deleted
        self.deleted: set[str] = set()
        self.keys: dict[str, tuple[str, object]] = {}  # idempotency key -> (job, request)
        self.epochs: dict[str, dict[int, tuple[int, str]]] = {}  # job -> epoch -> (attempt, fingerprint)
        self.reasons: dict[str, set[EndReason]] = {}  # submission -> what happened to it
        self.final: dict[str, object] = {}  # job -> what must not change any more
        # live submissions whose attempt has ended, and since when a controller has seen that: a new one begins anew
        self.overdue: dict[tuple[Controller, str], float] = {}
        self.began: dict[str, float] = {}  # when each attempt was claimed
        self.ran: dict[str, float] = {}  # and for how long it ran, at least
        self.jumped: set[str] = set()  # attempts in whose time the machines' clock jumped
        self.fenced: Snapshot | None = None  # when a service that was superseded in its pass went on
        self.services: list[Service] = []

    @initialize(several=st.booleans(), own=st.booleans(), workers=st.integers(1, 2), epochs=st.integers(1, 2))
    def begin(self, several, own, workers, epochs):
        sessions = count(1)
        names = ("one", "two") if several else ("one",)
        self.clusters = [Ray(self.db.interruptions, self.clocks, sessions, own=own) for _ in (names if own else "1")]
        self.services = [
            Service(self.db, self.clocks, name, self.clusters[place if own else 0], self.storage)
            for place, name in enumerate(names)
        ]
        self.heads_vie = several and own
        self.before = read_snapshot(self.raw)
        self.submit(workers=workers, epochs=epochs, priority=0, time_limit=None, key=None)
        for service in self.services:
            self.a_pass(service)

    # --- time ----------------------------------------------------------------------------------------------

    def time_passes(self, seconds):
        """Services that are not frozen renew their leases, and heads that were told to end do."""
        steps = max(1, round(seconds / STEP_S)) if self.heads_vie else 1
        for _ in range(steps):
            self.clocks.pass_by(seconds / steps)
            for service in self.services:
                service.cluster.end_if_due()
                service.renew()

    @rule(seconds=st.sampled_from([1, 7, 31, 61]))
    def some_time_passes(self, seconds):
        self.time_passes(seconds)

    @rule(hours=st.sampled_from([2, -2]), which=st.sampled_from(["wall", "database"]))
    def a_clock_jumps(self, hours, which):
        setattr(self.clocks, which, getattr(self.clocks, which) + timedelta(hours=hours))
        if which == "wall":
            self.jumped |= self.began.keys() - self.ran.keys()

    # --- users ---------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.job_ids) < MOST_JOBS)
    @rule(
        workers=st.integers(1, 3),
        epochs=st.integers(1, 2),
        priority=st.integers(-1, 1),
        time_limit=st.sampled_from([None, None, 40]),
        key=st.sampled_from([None, None, "a", "b"]),
    )
    def submit(self, workers, epochs, priority, time_limit, key):
        request, terms = (workers, epochs), Terms(priority, time_limit)
        known = self.keys.get(key)
        try:
            job_id, new = submit_job(self.db, spec(*request), key, terms)
        except IdempotencyConflict:
            assert known is not None
            assert known[1] != request
            return
        assert (job_id, new) == ((known[0], False) if known else (job_id, True))
        assert known is None or known[1] == request
        if new:
            self._accepted(job_id, epochs, key, request)

    def _accepted(self, job_id, epochs, key, request):
        assert job_id not in self.job_ids | self.deleted
        self.job_ids.add(job_id)
        self.epochs[job_id] = {}
        self.worker.lengths[job_id] = epochs
        (self.storage / job_id).mkdir()
        if key is not None:
            self.keys[key] = job_id, request

    @precondition(lambda self: len(self.job_ids) < MOST_JOBS)
    @rule(points=st.integers(0, 5), key=st.sampled_from([None, "a", "c"]), epochs=st.integers(1, 2))
    def submit_and_hear_nothing(self, points, key, epochs):
        """The database fails before or behind the commit; whoever has a key asks again, and whoever has none looks."""
        request = (1, epochs)
        known = self.keys.get(key)
        if known is not None and known[1] != request:
            return
        self.db.interruptions.plan(points, trouble)
        with contextlib.suppress(DatabaseError):
            submit_job(self.db, spec(*request), key, Terms())
        self.db.interruptions.cancel()
        there = set(read_snapshot(self.raw).jobs) - self.job_ids
        assert len(there) <= 1
        if key is not None:
            job_id, new = submit_job(self.db, spec(*request), key, Terms())
            assert new == (not there and known is None)
            assert {job_id} == (there or {job_id})
            there = {job_id} - self.job_ids
        for job_id in there:
            self._accepted(job_id, epochs, key, request)

    @precondition(lambda self: self.job_ids)
    @rule(data=st.data(), what=st.sampled_from(["cancel", "pause", "resume", "resume", "retry", "delete", "change"]))
    def ask(self, data, what):
        job_id = data.draw(st.sampled_from(sorted(self.job_ids)), label="job")
        getattr(self, f"_{what}")(job_id)

    def _asked(self, expected, use_case, job_id, *arguments):
        """Whether a use case was refused, as it must be just where `expected` says so."""
        try:
            answer = use_case(self.db, job_id, *arguments)
        except StateConflict:
            assert expected is StateConflict
            return None
        assert expected is not StateConflict
        return answer

    def _cancel(self, job_id):
        state = self._state(job_id)
        refused = StateConflict if state in (S.SUCCEEDED, S.FAILED) else None
        after = self._asked(refused, jobs.cancel, job_id)
        if not refused:
            assert after is self._state(job_id)
            assert after is (S.CANCELLED if state in (S.QUEUED, S.PAUSED, S.CANCELLED) else S.CANCELLING)

    def _pause(self, job_id):
        state = self._state(job_id)
        refused = StateConflict if state in ENDING else None
        after = self._asked(refused, pause, job_id)
        if not refused:
            assert after is self._state(job_id)
            assert after is (S.PAUSED if state in (*WAITING, S.PAUSED) else S.PAUSING)

    def _resume(self, job_id):
        state = self._state(job_id)
        refused = StateConflict if state in (*ENDING, S.PAUSING) else None
        after = self._asked(refused, resume, job_id)
        if not refused:
            assert after is (S.QUEUED if state is S.PAUSED else state)

    def _change(self, job_id):
        refused = StateConflict if self._state(job_id) in TERMINAL else None
        self._asked(refused, change_terms, job_id, {"priority": 1, "time_limit": None})

    def _retry(self, job_id):
        refused = None if self._state(job_id) in (S.FAILED, S.CANCELLED) else StateConflict
        again = self._asked(refused, retry, job_id)
        if again is not None:
            self._accepted(again, self.worker.lengths[job_id], None, None)
            self.epochs[again] = {e: (0, mark) for e, (_, mark) in trajectory(self.epochs[job_id]).items()}

    def _delete(self, job_id):
        now = read_snapshot(self.raw)
        goes_on = any(job.retry_of == job_id and job.state not in TERMINAL for job in now.jobs.values())
        unsure = any(not attempt.has_log for attempt in now.attempts[job_id])
        refused = StateConflict if now.jobs[job_id].state not in TERMINAL or goes_on or unsure else None
        self._asked(refused, delete_job, job_id, self.storage)
        if not refused:
            self._forget_job(job_id)
            assert not (self.storage / job_id).exists()

    def _forget_job(self, job_id):
        self.job_ids.remove(job_id)
        self.deleted.add(job_id)
        self.final.pop(job_id, None)
        self.keys = {key: value for key, value in self.keys.items() if value[0] != job_id}

    # --- Ray -----------------------------------------------------------------------------------------------

    @rule(cpus=st.sampled_from([4, 3, 2, 0]))
    def resize(self, cpus):
        for cluster in self.clusters:
            cluster.capacity_value = Capacity(cpus=cpus, gpus=0)

    @precondition(lambda self: self._live())
    @rule(data=st.data(), how=st.sampled_from(sorted(ENDS)))
    def a_ray_job_ends(self, data, how):
        cluster, process = data.draw(st.sampled_from(self._live()), label="process")
        self._end(cluster, process, how)

    def _end(self, cluster, process, how):
        reason = cluster.end(process.submission_id, how)
        self.reasons.setdefault(process.submission_id, set()).add(reason)

    @rule(data=st.data())
    def a_head_is_lost(self, data):
        data.draw(st.sampled_from(self.clusters), label="cluster").lose_head()

    @rule(data=st.data())
    def ray_is_away_or_back(self, data):
        cluster = data.draw(st.sampled_from(self.clusters), label="cluster")
        cluster.unreachable = not cluster.unreachable

    # --- workers -------------------------------------------------------------------------------------------

    def recorded(self, process, record):
        self.epochs[process.job_id].setdefault(record.epoch, (-1, ""))
        if self.epochs[process.job_id][record.epoch][0] != process.attempt:
            self.epochs[process.job_id][record.epoch] = process.attempt, record.fingerprint()

    @precondition(lambda self: self._processes())
    @rule(
        data=st.data(),
        start=st.sampled_from(["start", "start anew"]),
        what=st.sampled_from(["start", "report", "report", "again", "differently", "beat", "succeed", "fail", "pause"]),
    )
    def a_process_speaks(self, data, start, what):
        """Late ones too, and twice."""
        process = data.draw(st.sampled_from(self._processes()), label="process")
        self._speak(process, start if process.token is None else what)

    @precondition(lambda self: self._live())
    @rule(data=st.data(), points=st.integers(0, 2), what=st.sampled_from(["report", "succeed"]))
    def an_answer_is_lost(self, data, points, what):
        """The database fails before or behind the commit, and the worker says it again."""
        _, process = data.draw(st.sampled_from(self._live()), label="process")
        if process.token is None:
            what = "start"
        elif what == "report" and process.next_epoch > self.worker.lengths[process.job_id]:
            what = "succeed"  # there is no epoch left to report
        live, said = self._is_live(read_snapshot(self.raw), process), process.next_epoch
        self.db.interruptions.plan(points, trouble)
        with contextlib.suppress(DatabaseError, ForerunError):
            self._say(process, what)
        self.db.interruptions.cancel()
        over = self._state(process.job_id) in TERMINAL
        refused = self._speak(process, "again" if what == "report" and process.next_epoch > said else what)
        assert refused is None or not live or (what == "succeed" and not over)

    def _speak(self, process, what):
        """The error that it was refused with."""
        job_id = process.job_id
        if job_id in self.deleted or (process.token is None and not what.startswith("start")):
            return None
        before = read_snapshot(self.raw)
        live = self._is_live(before, process)
        refused = None
        try:
            self._say(process, what)
        except ForerunError as error:
            refused = error
        after = read_snapshot(self.raw)
        if refused is not None:
            assert after == before
            assert not live or not isinstance(refused, StaleAttempt)
        elif what.startswith("start"):
            assert live or before.jobs[job_id].state is S.SUBMITTING
            assert before.jobs[job_id].attempt == process.attempt
        elif after != before or what == "beat":
            assert live
        return refused

    def _say(self, process, what):
        if what.startswith("start"):
            self.worker.start(process)
            assert process.next_epoch == len(trajectory(self.epochs[process.job_id])) + 1
            if what == "start anew":  # its checkpoints are damaged
                process.next_epoch = 1
        elif what == "report":
            self.worker.report(process)
        elif what in ("again", "differently"):
            self.worker.report(process, epoch=max(1, process.next_epoch - 1), retries=int(what == "differently"))
        elif what == "beat":
            self.worker.beat(process)
        else:
            self.worker.finish(process, {"succeed": SUCCEEDED, "fail": FAILED, "pause": PAUSED}[what])

    def _is_live(self, snapshot, process):
        job, attempt = snapshot.jobs[process.job_id], snapshot.attempts[process.job_id][process.attempt - 1]
        trains = job.state in (S.RUNNING, S.PAUSING) and attempt.ended_at is None and job.attempt == process.attempt
        return trains and attempt.token_hash == jobs.hash_of(process.drawn)

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def a_worker_does_its_work(self, data):
        self.worker.live_on(*data.draw(st.sampled_from(self._live()), label="process"))

    @precondition(lambda self: self._live())
    @rule(report=st.booleans())
    def all_workers_get_on(self, report):
        for _, process in self._live():
            self._speak(process, "start" if process.token is None else "report" if report else "again")

    # --- services ------------------------------------------------------------------------------------------

    def a_pass(self, service):
        if service.frozen:
            return
        leads, before = service.lease.leads, read_snapshot(self.raw)
        finished = service.run_pass()
        if not (leads or service.lease.leads or self.db.interruptions.happened):
            assert read_snapshot(self.raw) == before, "one that stands by changed something"
        self._look_for_orphans(service, finished)

    @rule(seconds=st.sampled_from([0, 3, 11, 31]))
    def passes(self, seconds):
        self.time_passes(seconds)
        for service in self.services:
            self.a_pass(service)

    @precondition(lambda self: self._live())
    @rule(data=st.data(), how=st.sampled_from(sorted(ENDS)), seconds=st.sampled_from([3, 61]))
    def an_attempt_is_lost(self, data, how, seconds):
        """And noticed, and the next begins: else few examples get to a third attempt."""
        cluster, process = data.draw(st.sampled_from(self._live()), label="process")
        self._speak(process, "start")
        self._end(cluster, process, how)
        self.passes(seconds)
        self.passes(seconds)

    @rule(data=st.data(), points=st.integers(0, 25), what=st.sampled_from([trouble, death]))
    def a_pass_fails(self, data, points, what):
        service = data.draw(st.sampled_from(self.services), label="service")
        self._interrupted_pass(service, points, what)

    def _interrupted_pass(self, service, points, what):
        self.db.interruptions.plan(points, what)
        self.a_pass(service)
        self.db.interruptions.cancel()
        if self.fenced is not None:
            assert read_snapshot(self.raw) == self.fenced, "one that was superseded changed something"
            event("superseded in its pass")
        self.fenced = None

    @rule(
        data=st.data(),
        points=st.integers(0, 20),
        what=st.sampled_from(["takeover", "takeover", "cancel", "pause", "work", "end", "head", "time"]),
    )
    def something_happens_in_a_pass(self, data, points, what):
        service = data.draw(st.sampled_from(self.services), label="service")
        job_id = data.draw(st.sampled_from(sorted(self.job_ids)), label="job") if self.job_ids else None
        process = data.draw(st.sampled_from(self._live()), label="process") if self._live() else None

        def happen(point: Point) -> bool:
            if point is Point.COMMIT or any(one.lease._lock.locked() for one in self.services):
                return False  # inside a transaction, or a renewal of a lease
            if what == "takeover":
                self._superseded(service)
            elif what == "head":
                service.cluster.lose_head()
            elif what == "time":
                self.time_passes(11)
            elif what in ("cancel", "pause") and job_id in self.job_ids:
                getattr(self, f"_{what}")(job_id)
            elif what in ("work", "end") and process is not None and process in self._live():
                self.worker.live_on(*process) if what == "work" else self._end(*process, "crashes")
            return True

        self._interrupted_pass(service, points, happen)

    def _superseded(self, service):
        """It freezes in the middle of its pass, for so long that another one takes over; then it goes on."""
        if self.heads_vie and service.cluster.deadline is None:
            return  # it has not seen the other one yet (docs/operations.md, Several services)
        service.frozen = True
        for _ in range(9):
            self.time_passes(STEP_S)
            for other in self.services:
                self.a_pass(other)
        service.frozen = False
        if any(other.lease.leads for other in self.services if other is not service):
            self.fenced = read_snapshot(self.raw)

    @precondition(lambda self: len(self.services) > 1)
    @rule(data=st.data())
    def freeze_or_thaw(self, data):
        service = data.draw(st.sampled_from(self.services), label="service")
        if not service.frozen:
            service.renew()  # it has looked whether others are there
        service.frozen = not service.frozen

    @rule(data=st.data(), how=st.sampled_from(["kill", "stop"]))
    def a_service_ends(self, data, how):
        service = data.draw(st.sampled_from(self.services), label="service")
        if how == "kill":
            service.kill()
        elif not service.frozen:
            for attempts in read_snapshot(self.raw).attempts.values():
                for attempt in attempts:
                    self.reasons.setdefault(attempt.submission_id, set()).add(EndReason.SERVICE_STOPPED)
            service.stop()

    # --- what is known -------------------------------------------------------------------------------------

    def _state(self, job_id):
        return read_snapshot(self.raw).jobs[job_id].state

    def _live(self):
        return [(cluster, process) for cluster in self.clusters for process in cluster.live_processes()]

    def _processes(self):
        return [one for cluster in self.clusters for one in (*cluster.processes.values(), *cluster.ghosts)]

    # --- what holds at any time ----------------------------------------------------------------------------

    @invariant()
    def design(self):
        if not self.services:
            return
        now = read_snapshot(self.raw)
        self._nothing_is_lost_or_doubled(now)
        self._ended_jobs_stay(now)
        self._attempts_are_counted_for_what_they_did(now)
        self._one_submission_lives()
        if now != self.before and any(job.state in WAITING for job in now.jobs.values()):
            self._queue_is_consistent(now)
        self.before = now

    def _nothing_is_lost_or_doubled(self, now: Snapshot):
        assert now.jobs.keys() == self.job_ids
        assert {key: job_id for key, (job_id, _) in self.keys.items()} == now.keys
        for job_id in self.job_ids:
            assert now.epochs[job_id] == self.epochs[job_id]
            assert (self.storage / job_id).exists()
            assert now.events[job_id] == (now.jobs[job_id].last_event,) * 2

    def _ended_jobs_stay(self, now: Snapshot):
        for job_id, job in now.jobs.items():
            if job.state in TERMINAL:
                what = job, now.epochs[job_id], [attempt.without_log() for attempt in now.attempts[job_id]]
                assert self.final.setdefault(job_id, what) == what
            else:
                assert job_id not in self.final

    def _attempts_are_counted_for_what_they_did(self, now: Snapshot):
        sessions = {str(cluster.id) for cluster in self.clusters if cluster.runs}
        for job_id, job in now.jobs.items():
            attempts = now.attempts[job_id]
            assert [attempt.number for attempt in attempts] == list(range(1, job.attempt + 1))
            alive = [attempt for attempt in attempts if attempt.ended_at is None]
            assert alive in ([], attempts[-1:])
            for attempt in attempts:
                if attempt.reason is EndReason.CLUSTER_LOST:
                    assert attempt.cluster not in sessions, "it was given up though its head runs"
                elif attempt.reason is not None:
                    known = self.reasons.get(attempt.submission_id, set())
                    assert attempt.reason in known, f"{attempt.submission_id} ended as {attempt.reason}, not {known}"
            if job.error_code == "attempts_exhausted":
                progress = max((number for number, _ in self.epochs[job_id].values()), default=0)
                own = [one for one in attempts if one.number > progress and one.reason is EndReason.OWN and one.lost]
                assert len(own) >= MAX_ATTEMPTS
            for attempt in attempts:
                if attempt.ended_at is not None:
                    ran = self.clocks.steady - self.began[attempt.submission_id]
                    self.ran.setdefault(attempt.submission_id, ran)
            if job.error_code == "time_limit" and not self.jumped.intersection(a.submission_id for a in attempts):
                assert sum(self.ran[attempt.submission_id] for attempt in attempts) >= job.time_limit

    def _one_submission_lives(self):
        owners = [process.job_id for _, process in self._live()]
        assert len(owners) == len(set(owners)), owners

    def _look_for_orphans(self, service, finished):
        """After a whole pass of the service that leads nothing runs on its cluster whose attempt was superseded or
        cancelled, and nothing that has reported its outcome for longer than its grace."""
        if not finished or not service.lease.leads or self.db.interruptions.happened:
            return
        now = read_snapshot(self.raw)
        live, watcher = set(service.cluster.live()), service.controller
        self.overdue = {key: since for key, since in self.overdue.items() if key[0] is not watcher or key[1] in live}
        for submission_id in live:
            job_id, _, number = submission_id.rpartition("-a")
            assert job_id in self.job_ids, "an orphan of a job that was deleted"
            attempt = now.attempts[job_id][int(number) - 1]
            if attempt.ended_at is not None:
                assert attempt.reason is None, "an orphan that was superseded"
                assert now.jobs[job_id].state is not S.CANCELLED, "an orphan that was cancelled"
                since = self.overdue.setdefault((watcher, submission_id), self.clocks.steady)
                assert self.clocks.steady - since <= EXIT_GRACE_S, "an orphan"

    def _queue_is_consistent(self, now: Snapshot):
        """Places are 1, 2, 3, … by priority and then age, and every job that does not run says why."""
        sight = Sight(workers=self.clusters[0].capacity_value.cpus)
        with self.db.read() as session:
            alive = jobs_in(session, [state for state in S if state not in TERMINAL])
            queue = look_at_queue(session, alive, sight)
        expected = [job.id for job in now.queue(self.clocks.database, sight.workers)]
        assert queue.positions == {job_id: place for place, job_id in enumerate(expected, start=1)}
        assert all(reason_of(job, queue) for job in alive if job.state is not S.RUNNING)

    def claim_next(self, claim, db, **arguments):
        """Claim as the controller does: the next in the queue, and no more than there is room for."""
        happened, began = self.db.interruptions.happened, self.clocks.steady
        try:
            made = claim(db, **arguments)
        finally:
            for attempts in read_snapshot(self.raw).attempts.values():
                for attempt in attempts:
                    self.began.setdefault(attempt.submission_id, began)
        if made is None or self.db.interruptions.happened != happened:
            return made
        now, total = read_snapshot(self.raw), arguments["total"]
        claimed = now.jobs[made.job_id]
        better = [job for job in now.queue(self.clocks.database, total) if job.place < claimed.place]
        assert not better, "it was not its turn"
        assert sum(job.workers for job in now.jobs.values() if job.state in HOLDS_WORKERS) <= total
        assert sum(one.lease.leads for one in self.services) >= 1
        return made

    # --- and in the end ------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Everybody behaves from now on: each job ends."""
        if not self.services:
            return
        self.db.interruptions.cancel()
        for service in self.services:
            service.frozen = False
        for cluster in self.clusters:
            cluster.unreachable, cluster.capacity_value = False, Capacity(cpus=8, gpus=0)
        for _ in range(30):
            if not self._calm_round():
                break
        now = read_snapshot(self.raw)
        left = {job_id: job.state for job_id, job in now.jobs.items() if job.state not in TERMINAL}
        assert not left, left
        if self._live():
            self.passes(EXIT_GRACE_S + 1)
            self.passes(1)
        assert not self._live()
        assert {path.name for path in self.storage.iterdir()} == self.job_ids
        self.design()
        self.check_design(self.db)
        for job in read_snapshot(self.raw).jobs.values():
            event(f"ended as {job.error_code or job.state}")
        self.raw.close()

    def _calm_round(self):
        """Whether there is still something to do."""
        for job_id, job in read_snapshot(self.raw).jobs.items():
            if job.state is S.PAUSED:
                self._resume(job_id)
        self.passes(9)
        for cluster, process in self._live():
            self.worker.live_on(cluster, process)
        self.design()
        return any(job.state not in TERMINAL for job in read_snapshot(self.raw).jobs.values())


def trajectory(epochs):
    """The recorded epochs that the next attempt goes on from: those that no older attempt than the one before it
    recorded."""
    kept = {}
    for number in sorted(epochs):
        if not kept or epochs[number][0] >= kept[max(kept)][0]:
            kept[number] = epochs[number]
    return kept


@pytest.fixture
def run(sqlite_template, tmp_path, monkeypatch, invariants):
    """Run so many examples."""
    clocks, numbers = Clocks(), {"next": count(1)}
    db = FaultyStore(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'machine.db')}", Interruptions())
    monkeypatch.setattr(database_clock, "database_time", lambda _: clocks.database)
    for module in ("service.jobs.lifecycle", "service.jobs.submit", "service.jobs.deletion", "service.jobs.retry"):
        monkeypatch.setattr(f"{module}.now", clocks.now)
    monkeypatch.setattr(jobs, "backoff_seconds", backoff.backoff_seconds)
    monkeypatch.setattr(jobs.secrets, "token_hex", lambda _: f"{next(numbers['next']):016x}")
    current, claim = [], jobs.claim_next
    monkeypatch.setattr(jobs, "claim_next", lambda db, **arguments: current[-1].claim_next(claim, db, **arguments))

    def machine():
        numbers["next"] = count(1)
        current[:] = [Everything(db, clocks, tmp_path / "jobs", invariants)]
        return current[-1]

    def examples(number, steps):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=number,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.reuse, Phase.generate],  # add Phase.shrink to look into a failure: it takes minutes
            ),
        )

    yield examples
    db.close()


def test_every_fault_in_any_order(run):
    run(100, 30)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_fault_in_any_order_for_long(run):
    run(EXAMPLES, 40)
