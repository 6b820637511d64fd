"""A service in process: the real store, use cases and controller; the clock, Ray and the workers are played.

Time passes in turns of a second. In each the controller makes a pass, as its loop would, and every driver of Ray a
step: it exchanges its ticket, reports an epoch, reports its outcome, ends. A service that dies is started anew at once,
on what is in the database; whoever waited for its answer asks again.
"""

import hashlib
import json
import secrets
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from service.cluster.base import Capacity, Overview, RayJobStatus, Submission
from service.cluster.controller import Controller
from service.cluster.fake import FakeCluster
from service.cluster.lease import Lease, NotLeader
from service.errors import ClusterUnreachable, StaleAttempt
from service.jobs import reports
from service.jobs.submit import submit
from service.store.engine import Session, Store
from service.store.jobs import get_job
from service.validation.means import Means
from service.wire.states import TERMINAL, JobState
from service.wire.worker import Assignment, Outcome
from tests.builders import spec_document
from tests.clocks import Clocks
from tests.databases import wipe
from tests.faults import played
from tests.faults.bench import Bench, Inject
from tests.faults.invariants import Evidence, Expected, Kind, Violation, broken_records, read_jobs, violations_of

EPOCHS = 3
T = TypeVar("T")


class Died(BaseException):
    """The service is killed here: nothing of it runs on, not even its handlers of exceptions."""


class Away(Exception):
    """The service did not answer: it died, or its database is away."""


class Clock(Clocks):
    """Every clock that a service looks at."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the service look at this clock."""
        with (
            patch("service.jobs.lifecycle.now", self.now),
            patch("service.jobs.submit.now", self.now),
            patch("service.store.clock.database_time", lambda _: self.database),
        ):
            yield


class Fuse:
    """Ends the service at the n-th time that something happens, once: a statement of SQL, a commit, a call of Ray."""

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}
        self._armed: tuple[str, int] | None = None

    def arm(self, what: str, number: int = 1) -> None:
        """Die at the `number`-th `what` from now on."""
        self._armed, self.counted = (what, number), {}

    def disarm(self) -> bool:
        """Forget it; return whether nothing had come of it."""
        was_armed, self._armed = self._armed is not None, None
        return was_armed

    def reach(self, what: str) -> None:
        self.counted[what] = self.counted.get(what, 0) + 1
        if self._armed is not None and self._armed[0] == what:
            number = self._armed[1] - 1
            self._armed = (what, number) if number else None
            if not number:
                raise Died(what)


class FusedStore(Store):
    """A store under which the service may die: before any statement, or when a transaction is committed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fuse = fuse = Fuse()
        with self.connect_to_read() as connection:
            event.listen(connection.engine, "before_cursor_execute", lambda *_: fuse.reach("statement"))

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        self.fuse.reach("commit")


class PlayedRay(FakeCluster):
    """Ray, played: it counts how many submissions of a job ever lived at a time; the service may die before or behind a
    call, and a call may fail with `unreachable_share`, with or without effect."""

    def __init__(self, fuse: Fuse, draw: Random) -> None:
        super().__init__()
        self.most_live: dict[str, int] = {}
        self.unreachable_share = 0.0
        self._fuse, self._draw = fuse, draw

    def submit(self, submission_id: str, job_id: str, env: Any) -> None:
        self._fuse.reach("submit")
        fails = self._fails()
        if fails and self._draw.random() < 0.5:
            raise ClusterUnreachable("No answer from Ray (played).")
        super().submit(submission_id, job_id, env)
        self.look()
        if fails:
            raise ClusterUnreachable("No answer from Ray (played), which has it.")
        self._fuse.reach("submitted")

    def stop(self, submission_id: str) -> None:
        self._may_fail()
        self._fuse.reach("stop")
        super().stop(submission_id)

    def overview(self) -> Overview:
        self._may_fail()
        return super().overview()

    def capacity(self) -> Capacity:
        self._may_fail()
        return super().capacity()

    def live(self) -> list[str]:
        return Overview(self.id, dict(self._submissions)).live()  # of a copy: two threads may be at work

    def look(self) -> None:
        """Count what lives."""
        owners = [one.rpartition("-a")[0] for one in self.live()]
        for job_id in set(owners):
            self.most_live[job_id] = max(self.most_live.get(job_id, 0), owners.count(job_id))

    def status_of(self, submission_id: str) -> Submission | None:
        return self._submissions.get(submission_id)

    def _fails(self) -> bool:
        return self._draw.random() < self.unreachable_share

    def _may_fail(self) -> None:
        if self._fails():
            raise ClusterUnreachable("No answer from Ray (played).")


class Driver:
    """The Ray job of an attempt, played: it trains the chain of `played`, an epoch a step, and reports as
    `workers.job` does. One whose `in_ray` is false is out of Ray's sight and goes on all the same."""

    def __init__(self, world: "World", submission_id: str, job_id: str, ticket: str) -> None:
        self.world, self.submission_id, self.job_id, self.ticket = world, submission_id, job_id, ticket
        self.token = secrets.token_urlsafe(32)
        self.assignment: Assignment | None = None
        self.epoch, self.state = 0, played.START
        self.pauses, self.in_ray, self.ended = False, True, False
        self.fails_with: Outcome | None = None
        self.refused = 0  # reports that were refused because another attempt is the live one

    def step(self) -> None:
        """Do the next thing; nothing where the service does not answer."""
        if self.ended:
            return
        try:
            self._go_on()
        except Away:
            pass
        except StaleAttempt:
            self.refused += 1
            self._end(RayJobStatus.FAILED, "exit code 1")

    def _go_on(self) -> None:
        if self.in_ray:
            self.world.ray.set_status(self.submission_id, RayJobStatus.RUNNING)
        if self.assignment is None:
            self.assignment = self.world.call(
                lambda db: reports.exchange_ticket(db, self.job_id, self.ticket, self.token)
            )
            self._resume(self.assignment)
        elif self.fails_with is not None:
            self._finish(self.fails_with)
        elif self.pauses:
            self._finish(Outcome(state="paused"))
        elif self.epoch < EPOCHS:
            self.report_epoch(self.assignment)
        else:
            self._finish(Outcome(state="succeeded"))

    def _resume(self, assignment: Assignment) -> None:
        """Go on from the newest checkpoint that is as it was recorded."""
        for point in assignment.resume:
            state = self.world.disk.get((self.job_id, point.checkpoint.name))
            if state is not None and played.vouched_for(state, point.checkpoint.manifest_sha256):
                self.epoch, self.state = point.epoch, state
                return

    def report_epoch(self, assignment: Assignment) -> None:
        """Train an epoch, write its checkpoint, report it."""
        state = played.next_state(self.state)
        record = played.record_of(self.epoch + 1, state, assignment.attempt)
        assert record.checkpoint is not None
        self.world.disk[self.job_id, record.checkpoint.name] = state
        receipt = self.world.call(lambda db: reports.record_epoch(db, self.job_id, assignment.report_token, record))
        self.epoch, self.state, self.pauses = record.epoch, state, receipt.pause and record.epoch < EPOCHS

    def _finish(self, outcome: Outcome) -> None:
        assert self.assignment is not None
        token = self.assignment.report_token
        self.world.call(lambda db: reports.finish(db, self.job_id, token, outcome))
        self._end(RayJobStatus.FAILED if outcome.state == "failed" else RayJobStatus.SUCCEEDED, "")

    def _end(self, status: RayJobStatus, message: str) -> None:
        self.ended = True
        if self.in_ray:
            self.world.ray.set_status(self.submission_id, status, message)


@dataclass
class World:
    """A service on a database of its own, with the played Ray."""

    store: "FusedStore"
    draw: Random
    clock: Clock
    max_attempts: int = 3
    patience: int = 400  # turns in which every job must have ended

    def __post_init__(self) -> None:
        self.fuse = self.store.fuse
        self.ray = PlayedRay(self.fuse, self.draw)
        self.drivers: dict[str, Driver] = {}
        self.disk: dict[tuple[str, str], str] = {}  # checkpoints, by job and name
        self.accepted: dict[str, Expected] = {}
        self.told: list[Violation] = []
        self.deaths = 0
        self.start_service()

    def start_service(self) -> None:
        """Start the service anew: nothing of it is left but the database, and connections to that are its own."""
        self.store.close()
        self.controller = Controller(
            self.store,
            self.ray,
            {"FORERUN_API_URL": "http://played"},
            lease=Lease(self.store, "home", monotonic=self.clock.monotonic),
            max_attempts=self.max_attempts,
            monotonic=self.clock.monotonic,
        )

    def call(self, use_case: Callable[[Store], T]) -> T:
        """What a route of the API does with a request. Raises Away where the service dies of it."""
        try:
            return use_case(self.store)
        except Died:
            self.die()
            raise Away from None
        except SQLAlchemyError as error:
            raise Away from error

    def die(self) -> None:
        """The service is killed, and started anew."""
        self.deaths += 1
        self.start_service()

    def submit(self, expected: Expected | None = None, **changes: Any) -> str:
        """A client submits a job of three epochs until it is answered, by an idempotency key, and is promised what is
        `expected`."""
        raw = spec_bytes(**{"epochs": EPOCHS, **changes})
        key = hashlib.sha256(self.draw.randbytes(16)).hexdigest()
        while True:
            with suppress(Away):
                job_id = self.call(lambda db: submit(db, raw, Means(Path("data")), key))
                break
            self.clock.pass_by(0.1)
        self.accepted[job_id] = expected or Expected(results=played.undisturbed(EPOCHS))
        return job_id

    def expect(self, job_id: str, **changes: Any) -> None:
        """Change what the job is expected to come to."""
        self.accepted[job_id] = replace(self.accepted[job_id], **changes)

    def run_pass(self) -> None:
        """A pass of the controller, as its loop makes it."""
        try:
            self.controller.run_pass()
        except Died:
            self.die()
        except (ClusterUnreachable, NotLeader, SQLAlchemyError):
            pass  # the loop tells of it, and the next pass starts afresh

    def turn(self, *, works: bool = True) -> None:
        """A second passes: a pass, and where the drivers work, a step of each."""
        self.clock.pass_by(1.0)
        self.run_pass()
        for submission_id, job_id, env in self.ray.submitted:
            if submission_id not in self.drivers:
                self.drivers[submission_id] = Driver(self, submission_id, job_id, env["FORERUN_TICKET"])
        if works:
            self.work()

    def work(self) -> None:
        """A step of every driver that Ray has not stopped."""
        for driver in self.drivers.values():
            found = self.ray.status_of(driver.submission_id)
            if driver.in_ray and (found is None or found.status is RayJobStatus.STOPPED):
                driver.ended = True  # with the head, or stopped
            driver.step()
        self.ray.look()

    def until(self, condition: Callable[[], bool], *, works: bool = True) -> None:
        """Let turns pass until the condition holds."""
        for _ in range(self.patience):
            if condition():
                return
            self.turn(works=works)
        raise AssertionError(f"not within {self.patience} turns")

    def state(self, job_id: str) -> JobState:
        with self.store.read() as session:
            return get_job(session, job_id).state

    def driver_of(self, job_id: str) -> Driver:
        """The driver of the job's newest attempt."""
        return [driver for driver in self.drivers.values() if driver.job_id == job_id][-1]

    def settle(self) -> list[Violation]:
        """Let every job come to its end, and look at what is there."""
        self.fuse.disarm()

        def settled() -> bool:
            waited_for = [job_id for job_id, expected in self.accepted.items() if expected.state in TERMINAL]
            return not self.ray.live() and all(self.state(job_id) in TERMINAL for job_id in waited_for)

        with suppress(AssertionError):
            self.until(settled)
        for _ in range(2):  # what an ended job leaves to do
            self.turn()
        return violations_of(
            Evidence(
                jobs=read_jobs(self.store),
                accepted=self.accepted,
                live=self.ray.live(),
                most_live=self.ray.most_live,
                told=[*self.told, *broken_records(self.store)],
            )
        )

    def tell(self, kind: Kind, of: str, sentence: str) -> None:
        """Note a violation that is seen as it happens."""
        self.told.append(Violation(kind, of, sentence))


def spec_bytes(**changes: Any) -> bytes:
    """The JSON of a small spec."""
    return json.dumps(spec_document(**changes)).encode()


def in_process(scenario: Callable[[World, int], None]) -> Inject:
    """The injection of a fault that `scenario` does to a world of its own, given the number of the injection: every
    other one on PostgreSQL, where that is at hand."""

    def inject(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
        with bench.databases() as urls:
            stores = [FusedStore(url) for url in urls]
            for number in numbers:
                clock, store = Clock(), stores[number % len(stores)]
                with clock.installed():
                    world = World(store, draw, clock)
                    try:
                        scenario(world, number)
                    except AssertionError as error:
                        where = traceback.extract_tb(error.__traceback__)[-1]
                        told = f"{error} ({where.filename}:{where.lineno}: {where.line})"
                        world.tell(Kind.LEFT_BEHIND, f"injection {number}", told)
                    violations = world.settle()
                wipe(store)
                yield violations
            for store in stores:
                store.close()

    return inject
