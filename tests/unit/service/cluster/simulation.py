"""Services without their API, on one database, over Ray clusters in memory.

Every clock is the test's. Whatever a service asks of the database or of Ray comes by a point of `Interruptions`, where
it may be refused, cut off behind its effect, or killed, or where others do something meanwhile.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from service.cluster.base import Capacity, RayJobStatus
from service.cluster.controller import Controller
from service.cluster.fake import FakeCluster
from service.cluster.lease import Lease, NotLeader
from service.errors import ClusterUnreachable, ForerunError
from service.jobs import reports
from service.jobs.deletion import Housekeeper
from service.store.engine import DatabaseError, Session, Store
from service.wire.states import EndReason
from service.wire.worker import EpochRecord, Heartbeat, Outcome
from tests.clocks import Clocks
from tests.unit.service.reports import checkpoint, scheduled_epoch

MAX_ATTEMPTS = 3
STEP_S = 3.0  # between two renewals of a lease
SUCCEEDED, PAUSED = Outcome(state="succeeded"), Outcome(state="paused")
FAILED = Outcome(state="failed", code="diverged", message="every branch did")


# --- points where something may happen -----------------------------------------------------------------------


class Point(StrEnum):
    """A place in what a service does, from which the world can be told something."""

    DATABASE = "a transaction is about to begin"
    COMMIT = "it is about to be committed"
    COMMITTED = "it has been"
    RAY = "Ray is about to be asked"
    ANSWERED = "Ray has done what it was asked for"


class Died(BaseException):
    """The process of a service is killed."""


class Interruptions:
    """What happens at a point that is so many points away, once."""

    def __init__(self) -> None:
        self._left, self._what = 0, None
        self.happened = False

    def plan(self, points: int, what: Callable[[Point], bool]) -> None:
        """After so many points let `what` happen; where it answers False it waits for the next one."""
        self._left, self._what, self.happened = points, what, False

    def cancel(self) -> None:
        self._what = None

    def visit(self, point: Point) -> None:
        what = self._what
        if what is None:
            return
        self._left -= 1
        if self._left < 0:
            self._what = None  # nothing interrupts what happens now
            self.happened = True
            if not what(point):
                self._what, self.happened = what, False


def trouble(point: Point) -> bool:
    """The database or Ray does not answer."""
    if point in (Point.RAY, Point.ANSWERED):
        raise ClusterUnreachable("No answer from Ray.")
    raise OperationalError("a statement", {}, OSError("disk I/O error"))


def death(point: Point) -> bool:
    raise Died


class FaultyStore(Store):
    """A store on an SQLite file that need not survive a power cut."""

    def __init__(self, url: str, interruptions: Interruptions) -> None:
        super().__init__(url)
        self.interruptions = interruptions

        @event.listens_for(self._engine, "connect")
        def hurry(connection, _) -> None:
            connection.execute("PRAGMA synchronous=OFF")

    @contextmanager
    def read(self) -> Iterator[Session]:
        self.interruptions.visit(Point.DATABASE)
        with super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        self.interruptions.visit(Point.DATABASE)
        with super().write() as session:
            yield session
            self.interruptions.visit(Point.COMMIT)
        self.interruptions.visit(Point.COMMITTED)


# --- Ray ------------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Process:
    """The Ray job of one submission, as far as the service can tell. It may speak after Ray has lost it."""

    submission_id: str
    ticket: str
    token: str | None = None  # once it has got an answer
    next_epoch: int = 1
    outcome: Outcome | None = None

    def __repr__(self) -> str:
        return self.submission_id

    @property
    def job_id(self) -> str:
        return self.submission_id.rpartition("-a")[0]

    @property
    def drawn(self) -> str:
        """The token that it asks for."""
        return f"token for {self.ticket}"

    @property
    def attempt(self) -> int:
        return int(self.submission_id.rpartition("-a")[2])


# How a Ray job ends without an outcome: status, Ray's words, its error type, and the reason that it is.
ENDS = {
    "crashes": (RayJobStatus.FAILED, "Traceback …\nRuntimeError: no", None, EndReason.OWN),
    "exits": (RayJobStatus.SUCCEEDED, "", None, EndReason.OWN),
    "is stopped": (RayJobStatus.STOPPED, "", None, EndReason.OWN),
    "loses its node": (
        RayJobStatus.FAILED,
        "ray: the actor died because its node has died.",
        None,
        EndReason.NODE_LOST,
    ),
    "loses its supervisor": (RayJobStatus.FAILED, "", "JOB_SUPERVISOR_ACTOR_DIED", EndReason.SUPERVISOR_LOST),
    "fills the disk": (RayJobStatus.FAILED, "OSError: [Errno 28] No space left on device", None, EndReason.DISK_FULL),
    "is forgotten": (None, "", None, EndReason.OWN),
}


class Ray(FakeCluster):
    """A cluster whose head may end, alone or at the time that `hold` has told it; one of a service's own is started
    again at the next look at it."""

    def __init__(self, interruptions: Interruptions, clocks: Clocks, sessions: Iterator[int], *, own: bool) -> None:
        super().__init__(own=own, session=f"s{next(sessions)}")
        self.own, self._interruptions, self._clocks, self._sessions = own, interruptions, clocks, sessions
        self.runs, self.deadline = True, None
        self.processes: dict[str, Process] = {}  # the newest of each submission
        self.ghosts: list[Process] = []  # of those that Ray has lost

    def __repr__(self) -> str:
        return f"{self.id}"

    def lose_head(self) -> None:
        """With all that runs on it."""
        self.ghosts += self.processes.values()
        self.processes.clear()
        self.restart(f"s{next(self._sessions)}")
        self.runs, self.deadline = not self.own, None

    def end(self, submission_id: str, how: str) -> EndReason:
        """A Ray job ends without an outcome; the reason that this is."""
        status, message, error_type, reason = ENDS[how]
        if status is None:
            self.forget(submission_id)
            self.ghosts.append(self.processes.pop(submission_id))
        else:
            self.set_status(submission_id, status, message, error_type)
        return reason

    def end_if_due(self) -> None:
        if self.deadline is not None and self._clocks.steady >= self.deadline:
            self.lose_head()

    def live_processes(self) -> list[Process]:
        return [self.processes[submission_id] for submission_id in self.live()]

    def hold(self, seconds: float | None) -> None:
        if self.own and self.runs:
            self.deadline = None if seconds is None else self._clocks.steady + seconds
            self.end_if_due()

    def capacity(self) -> Capacity:
        self._interruptions.visit(Point.RAY)
        if not self.unreachable:
            self.runs = True
        return super().capacity()

    def overview(self):
        self._interruptions.visit(Point.RAY)
        return super().overview()

    def submit(self, submission_id, job_id, env) -> None:
        self._interruptions.visit(Point.RAY)
        before = len(self.submitted)
        super().submit(submission_id, job_id, env)
        if len(self.submitted) > before:
            if submission_id in self.processes:
                self.ghosts.append(self.processes[submission_id])
            self.processes[submission_id] = Process(submission_id, env["FORERUN_TICKET"])
        self._interruptions.visit(Point.ANSWERED)

    def stop(self, submission_id: str) -> None:
        self._interruptions.visit(Point.RAY)
        super().stop(submission_id)
        self._interruptions.visit(Point.ANSWERED)

    def logs(self, submission_id: str) -> str:
        self._interruptions.visit(Point.RAY)
        return super().logs(submission_id)

    def _answer(self) -> None:
        if not self.runs:
            raise ClusterUnreachable("No answer from Ray: its head has ended.")
        super()._answer()


# --- services -------------------------------------------------------------------------------------------------


class Service:
    """A service without its API. A frozen one does nothing, and its lease is not renewed."""

    def __init__(self, db: Store, clocks: Clocks, name: str, cluster: Ray, storage: Path) -> None:
        self.db, self.clocks, self.name, self.cluster, self.storage = db, clocks, name, cluster, storage
        self.frozen = False
        self.start_anew()

    def __repr__(self) -> str:
        return self.name

    def start_anew(self) -> None:
        self.lease = Lease(self.db, self.name, f"http://{self.name}:8000", monotonic=self.clocks.monotonic)
        self.controller = Controller(
            self.db,
            self.cluster,
            {},
            lease=self.lease,
            max_attempts=MAX_ATTEMPTS,
            monotonic=self.clocks.monotonic,
            housekeeper=Housekeeper(self.lease.store, self.storage, clock=self.clocks.monotonic),
        )
        self.frozen = False

    def run_pass(self) -> bool:
        """Whether it was finished; a process that is killed in it is started anew."""
        try:
            self.controller.run_pass()
            return True
        except (ClusterUnreachable, DatabaseError, NotLeader):
            return False
        except Died:
            self.kill()
            return False

    def kill(self) -> None:
        """And start it anew."""
        if self.cluster.own:
            self.cluster.lose_head()
        self.start_anew()

    def stop(self) -> None:
        """In order, as `python -m api` does it, and start it anew."""
        if self.cluster.own:
            self.controller.release()
            self.cluster.lose_head()
        self.lease.close()
        self.start_anew()

    def renew(self) -> None:
        """As the thread of its lease does."""
        if self.lease.leads and not self.frozen:
            self.lease.renew()
            self.cluster.hold(self.lease.must_end_within)


# --- workers --------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """Speaks for processes, as `workers/job.py` does; `recorded` is told of each report that was accepted."""

    db: Store
    recorded: Callable[[Process, EpochRecord], None]
    lengths: dict[str, int] = field(default_factory=dict)  # epochs of each job

    def start(self, process: Process) -> None:
        """Or ask again, where the answer was lost."""
        assignment = reports.exchange_ticket(self.db, process.job_id, process.ticket, process.drawn)
        process.token = assignment.report_token
        process.next_epoch = max((point.epoch for point in assignment.resume), default=0) + 1

    def report(self, process: Process, *, epoch: int | None = None, retries: int = 0) -> bool:
        """Report the next epoch, or an earlier one again, with other values where `retries` is not 0. Whether the job
        is to pause."""
        number = epoch or process.next_epoch
        reference = checkpoint(number, process.attempt)
        record = scheduled_epoch(number, label="fixed", retries=retries, checkpoint=reference)
        receipt = reports.record_epoch(self.db, process.job_id, process.token, record)
        self.recorded(process, record)
        process.next_epoch = max(process.next_epoch, number + 1)
        return receipt.pause

    def beat(self, process: Process) -> bool:
        """Whether the job is to pause."""
        return reports.heartbeat(self.db, process.job_id, process.token, Heartbeat(iterations=process.next_epoch)).pause

    def finish(self, process: Process, outcome: Outcome) -> None:
        reports.finish(self.db, process.job_id, process.token, outcome)
        process.outcome = outcome

    def live_on(self, cluster: Ray, process: Process) -> None:
        """From wherever it is to its end."""
        status = RayJobStatus.FAILED
        try:
            if process.token is None:
                self.start(process)
            pauses = False
            while process.outcome is None and not pauses and process.next_epoch <= self.lengths[process.job_id]:
                pauses = self.report(process)
            if process.outcome is None:
                self.finish(process, PAUSED if pauses else SUCCEEDED)
            status = RayJobStatus.FAILED if process.outcome is FAILED else RayJobStatus.SUCCEEDED
        except ForerunError:
            pass
        if cluster.processes.get(process.submission_id) is process:
            cluster.set_status(process.submission_id, status)
