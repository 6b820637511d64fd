"""The promise that a Ray cluster keeps to the controller. `ray_jobs` keeps it over HTTP, `fake` in memory for tests;
tests/integration/test_cluster.py holds both to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class RayJobStatus(StrEnum):
    PENDING = "PENDING"  # accepted, the driver has not started
    RUNNING = "RUNNING"  # the driver runs
    SUCCEEDED = "SUCCEEDED"  # the driver ended with exit code 0
    FAILED = "FAILED"  # the driver ended with another exit code, or could not be started, or was lost
    STOPPED = "STOPPED"  # the driver was ended by `stop`


LIVE = (RayJobStatus.PENDING, RayJobStatus.RUNNING)


@dataclass(frozen=True)
class Submission:
    """One attempt of a job as Ray sees it. `message` is Ray's account of the status, "" when it gave none."""

    submission_id: str
    status: RayJobStatus
    message: str


@dataclass(frozen=True)
class Capacity:
    """What the live nodes have in total, whether in use or not."""

    cpus: float
    gpus: float


class Cluster(Protocol):
    """A Ray cluster.

    Every method may be called from any thread, returns within bounded time, and raises `ClusterUnreachable`, and
    nothing else, when Ray does not answer, answers nonsense or refuses us.
    """

    dashboard_url: str

    def capacity(self) -> Capacity: ...

    def submit(self, submission_id: str, job_id: str, env: Mapping[str, str]) -> None:
        """Ray knows `submission_id` when this returns. If Ray knew it before, that submission is adopted as it is and
        nothing is started; so a submit that was cut off is simply repeated."""

    def find(self, submission_id: str) -> Submission | None:
        """None: Ray answered, and does not know it."""

    def stop(self, submission_id: str) -> None:
        """Asks for an end and does not wait for it. A submission that is unknown or has ended stays as it is."""

    def live(self) -> list[str]:
        """The submissions that are PENDING or RUNNING, whoever made them, sorted."""

    def logs(self, submission_id: str) -> str:
        """What the driver has printed so far; "" when Ray does not know the submission."""


def checked_id(identifier: str) -> str:
    """Ids end up in a URL and in a shell line. They are ours: a wrong one is our own mistake, not a user's."""
    assert re.fullmatch(r"[a-z0-9-]+", identifier), identifier
    return identifier
