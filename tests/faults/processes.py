"""Real services, Ray heads and nodes for the faults that are done to processes.

Everything that is started inherits an environment variable of the bench, so that what is left is found; temporary files
lie in its folder.
"""

import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from service.cluster.base import Overview
from service.cluster.local_head import EmbeddedHead
from service.cluster.ray_jobs import RayCluster
from service.errors import ClusterUnreachable
from service.store.engine import Store
from service.store.jobs import get_job
from service.wire.states import TERMINAL, JobState
from tests.e2e.service import Service
from tests.faults.bench import Bench
from tests.faults.invariants import (
    Evidence,
    Expected,
    Kind,
    Violation,
    broken_records,
    files_in,
    read_jobs,
    violations_of,
)
from tests.processes import of_each

PATIENCE_S = 240.0  # in which what is waited for must have happened, on a busy machine
PLAYED = """#!/bin/sh
exec {python} -m tests.faults.played_job "$4"
"""


class Site:
    """Where services are killed: a Ray head that outlives them, whose jobs are played unless `real`, and the database
    and the folder that they share."""

    def __init__(self, bench: Bench, database_url: str, folder: Path, *, real: bool = False, cpus: int = 4) -> None:
        self.bench, self.database_url, self.folder = bench, database_url, folder
        self._real, self._cpus = real, cpus
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.store = Store(self.database_url)
        with self.bench.as_temporary_folder():
            self.head = self._stack.enter_context(EmbeddedHead(num_cpus=self._cpus, num_gpus=0))
        self.ray = RayCluster(self.head.dashboard_url, self.head.token, sys.executable)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.store.close()

    @cached_property
    def python(self) -> str:
        """What Ray runs jobs with."""
        if self._real:
            return sys.executable
        script = self.folder / "python"
        script.write_text(PLAYED.format(python=sys.executable))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return str(script)

    @contextmanager
    def service(self, name: str = "home", port: int | None = None, **environment: str) -> Iterator[Service]:
        """A service on this database and head; jobs' files lie in the site's folder."""
        settings = {
            "FORERUN_DATABASE_URL": self.database_url,
            "FORERUN_JOBS_DIR": str(self.folder / "jobs"),
            "FORERUN_RAY_ADDRESS": self.head.dashboard_url,
            "FORERUN_RAY_TOKEN": self.head.token,
            "FORERUN_RAY_PYTHON": self.python,
        }
        with self.bench.service(self.folder / name, port, **{**settings, **environment}) as service:
            yield service


@dataclass
class Watch:
    """Follows jobs of a service to their end, and holds them against the invariants."""

    store: Store
    overview: Callable[[], Overview]
    jobs_dir: Path
    accepted: dict[str, Expected] = field(default_factory=dict)
    told: list[Violation] = field(default_factory=list)
    most_live: dict[str, int] = field(default_factory=dict)
    earlier: set[str] = field(default_factory=set)

    def state(self, job_id: str) -> JobState:
        with self.store.read() as session:
            return get_job(session, job_id).state

    def look(self) -> list[str]:
        """Count what Ray runs; the submissions that live. None can be seen while Ray is away."""
        with suppress(ClusterUnreachable):
            live = self.overview().live()
            for job_id in self.accepted:
                number = sum(one.rpartition("-a")[0] == job_id for one in live)
                self.most_live[job_id] = max(self.most_live.get(job_id, 0), number)
            return live
        return []

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE_S, what: str = "") -> bool:
        """Wait until the condition holds, and look at Ray meanwhile; whether it did in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.told.append(Violation(Kind.LEFT_BEHIND, what or "the condition", f"not within {seconds:.0f} s"))
                return False
            self.look()
            time.sleep(0.1)
        return True

    def rest(self, seconds: float) -> None:
        """Let time pass, and look at Ray meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.look()
            time.sleep(0.1)

    def settle(self, ends_in: float = PATIENCE_S) -> list[Violation]:
        """Wait for the end of every job that was accepted since the last time, and look at what is there."""
        ids = list(self.accepted)
        self.until(lambda: all(self.state(one) in TERMINAL for one in ids if self._ends(one)), ends_in, "a job's end")
        self.until(lambda: not self._live_of(ids), 60.0, "the end of its Ray job")
        found = [job for job in read_jobs(self.store) if job.id not in self.earlier]
        spools = [f"{job.id}-a{job.attempts}/spool/*.json" for job in found if job.state is JobState.SUCCEEDED]
        evidence = Evidence(
            jobs=found,
            accepted=dict(self.accepted),
            live=self._live_of(ids),
            most_live=dict(self.most_live),
            files=[file for pattern in spools for file in files_in(self.jobs_dir, pattern)],
            told=[*self.told, *broken_records(self.store)],
        )
        self.earlier |= set(ids)
        self.accepted.clear()
        self.told.clear()
        self.most_live.clear()
        return violations_of(evidence)

    def _ends(self, job_id: str) -> bool:
        return self.accepted[job_id].state in TERMINAL

    def _live_of(self, ids: Sequence[str]) -> list[str]:
        return [one for one in self.look() if one.rpartition("-a")[0] in ids]


def free_port() -> int:
    """A port that is free, and low enough that Linux gives it to no outgoing connection."""
    for port in range(21_000 + os.getpid() % 5000, 32_000):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def kill(service: Service) -> None:
    """`kill -9` of a service alone."""
    service.process.kill()
    service.process.wait(30)


def processes_of(service_pid: int, words: str) -> list[Any]:
    """The processes below a service whose command line contains the words."""
    return of_each(service_pid, lambda process: [process] if words in " ".join(process.cmdline()) else [])
