"""In process, but the clock and the controller's threads are real: the database is away while jobs are submitted, run
and report."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from unittest.mock import patch

from service.cluster.controller import Controller
from service.cluster.lease import Lease
from tests.faults.bench import Bench
from tests.faults.invariants import Violation
from tests.faults.world import Clock, FusedStore, World

CLIENTS = 4
LONG_S = 31.0  # for longer than SQLite waits for a lock
POLL_S = 0.05


class RealClock(Clock):
    """The machine's own clock, by which a turn is some hundredths of a second."""

    def monotonic(self) -> float:
        return time.monotonic()

    def pass_by(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.02))


class BusyWorld(World):
    """A world whose controller runs in its own thread, as in the service."""

    def start_service(self) -> None:
        self.lease = Lease(self.store, "home")
        environment = {"FORERUN_API_URL": "http://played"}
        self.controller = Controller(self.store, self.ray, environment, lease=self.lease, poll_seconds=POLL_S)
        self.controller.start()

    def run_pass(self) -> None:
        pass  # the thread does


@contextmanager
def busy_world(url: str, draw: Random) -> Iterator[BusyWorld]:
    store = FusedStore(url)
    world = BusyWorld(store, draw, RealClock(), patience=3000)
    try:
        yield world
    finally:
        world.controller.stop()
        world.lease.close()
        store.close()


def restarted(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """PostgreSQL is killed and started again, up to two seconds later, while four clients submit and the jobs run."""
    for _ in numbers:
        with bench.on_postgres() as url, busy_world(url, draw) as world, ThreadPoolExecutor(CLIENTS) as clients:
            submissions = [clients.submit(_submit_often, world) for _ in range(CLIENTS)]
            _work(world, draw.uniform(0.0, 1.0))
            bench.postgres.kill()
            _work(world, draw.uniform(0.0, 2.0))
            bench.postgres.start()
            for submission in submissions:
                submission.result()
            yield world.settle()


def locked(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """Another program holds the lock of SQLite: every second time for longer than the service waits for it, otherwise
    for a while in which a service that waits for half a second gives up."""
    for number in numbers:
        long = number % 2 == 1
        with (
            bench.sqlite() as url,
            patch("service.store.engine.BUSY_TIMEOUT_MS", 30_000 if long else 500),
            busy_world(url, draw) as world,
            ThreadPoolExecutor(CLIENTS + 1) as threads,
        ):
            submissions = [threads.submit(_submit_often, world) for _ in range(CLIENTS)]
            _work(world, draw.uniform(0.0, 1.0))
            held = threads.submit(_hold_the_lock, url, LONG_S if long else draw.uniform(0.7, 2.0))
            while not held.done():
                world.turn()
            for submission in submissions:
                submission.result()
            yield world.settle()


def _hold_the_lock(url: str, seconds: float) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30.0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def _submit_often(world: BusyWorld) -> None:
    for _ in range(2):
        world.submit()
        time.sleep(0.3)


def _work(world: BusyWorld, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        world.turn()
