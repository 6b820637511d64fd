"""The promise that a Ray cluster keeps to the controller, as a protocol. `ray_jobs` keeps it over HTTP, `fake` in
memory for tests; tests/integration/test_cluster.py holds both to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class RayJobStatus(StrEnum):
    """The status of a Ray job, in Ray's own words."""

    PENDING = "PENDING"  # accepted, the driver has not started
    RUNNING = "RUNNING"  # the driver runs
    SUCCEEDED = "SUCCEEDED"  # the driver ended with exit code 0
    FAILED = "FAILED"  # the driver ended with another exit code, or could not be started, or was lost
    STOPPED = "STOPPED"  # the driver was ended by `stop`


LIVE = (RayJobStatus.PENDING, RayJobStatus.RUNNING)


@dataclass(frozen=True)
class Submission:
    """One attempt of a job as Ray sees it. `message` is Ray's account of the status, "" when it gave none; `error_type`
    Ray's word for what went wrong, if it has one."""

    submission_id: str
    status: RayJobStatus
    message: str
    error_type: str | None = None


@dataclass(frozen=True)
class ClusterId:
    """One life of a cluster: where it is, and Ray's own name of the time from its head's start to its end.

    `address`: the dashboard's URL; None: a head that ends with the service that started it. What was submitted to one
    session is gone in the next.
    """

    address: str | None
    session: str

    def __str__(self) -> str:
        return f"{self.address or OWN_HEAD} {self.session}"

    @classmethod
    def parse(cls, text: str) -> "ClusterId":
        """The id whose text this is."""
        address, _, session = text.partition(" ")
        return cls(None if address == OWN_HEAD else address, session)


OWN_HEAD = "own-head"


@dataclass(frozen=True)
class Overview:
    """All submissions that a cluster knows, by their ids, and which cluster that is. It was asked for its session last:
    what is not among the submissions was not there in that session."""

    cluster: ClusterId
    submissions: Mapping[str, Submission]

    def live(self) -> list[str]:
        """The ids of those that are PENDING or RUNNING, whoever made them, sorted."""
        return sorted(one.submission_id for one in self.submissions.values() if one.status in LIVE)


@dataclass(frozen=True)
class Capacity:
    """The CPUs and GPUs that the cluster's live nodes have in total, whether in use or not."""

    cpus: float
    gpus: float

    @property
    def workers(self) -> float:
        """How many workers there is room for: one for each CPU, or for each GPU where there are more of those."""
        return max(self.cpus, self.gpus)


class Cluster(Protocol):
    """A Ray cluster.

    Every method may be called from any thread, returns within bounded time, and raises `ClusterUnreachable`, and
    nothing else, when Ray does not answer, answers nonsense or refuses us.
    """

    dashboard_url: str

    def capacity(self) -> Capacity:
        """The CPUs and GPUs of the live nodes, whether in use or not."""

    def overview(self) -> Overview:
        """All submissions of the cluster, in one request however many there are, and which cluster it is."""

    def submit(self, submission_id: str, job_id: str, env: Mapping[str, str]) -> None:
        """Submit the Ray job of an attempt, with `env` as its environment; Ray knows `submission_id` when this returns.

        If Ray knew it before, that submission is adopted as it is and nothing is started; so a submit that was cut off
        is simply repeated.
        """

    def find(self, submission_id: str) -> Submission | None:
        """The submission of that id as Ray sees it; None when Ray answers that it does not know the id."""

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end a submission, without waiting for it. One that is unknown or has ended stays as it is."""

    def logs(self, submission_id: str) -> str:
        """What the driver of a submission has printed so far; "" when Ray does not know the submission."""

    def nodes_of(self, submission_id: str) -> Mapping[str, bool]:
        """The ids of the nodes that actors of a submission were on, and whether each node lives; empty when Ray knows
        no submission of that id."""

    def hold(self, seconds: float | None) -> None:
        """Where the cluster is a head of the service's own: let all of it end after `seconds`, unless this is called
        again until then; None: let it stay. A cluster of somebody else's stays as it is. Raises nothing."""


def checked_id(identifier: str) -> str:
    """Return the id of a job or submission if it is fit for a URL and a shell line. A wrong one is our own mistake, not
    a user's, and fails an assertion."""
    assert re.fullmatch(r"[a-z0-9-]+", identifier), identifier
    return identifier
