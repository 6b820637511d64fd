"""What the controller asks of Ray: submit, find, stop, list, read the log.

`Cluster` is the promise. `RayCluster` keeps it by talking to a Ray dashboard, `FakeCluster` in memory for the tests of
the controller; tests/integration/test_cluster.py holds both to it. A Ray of our own to talk to: local_head.py.

`RayCluster` speaks Ray's documented REST API instead of using its `JobSubmissionClient`: that one has no timeouts, and
lets `RAY_ADDRESS` in the environment override the address it was given.
"""

import contextlib
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import httpx

from service.errors import ClusterUnreachable

TIMEOUT = httpx.Timeout(30.0, connect=5.0)  # the first submission makes Ray start things: seconds

T = TypeVar("T")


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


class RayCluster:
    """A Ray cluster behind the dashboard at `dashboard_url`; `token` is its authentication token, if it wants one.

    The driver of a submission is `<python> -P -m <module> <job_id>`, where `python` is a path on Ray's head node; -P
    keeps it from importing what lies in the folder that Ray was started in. Only the job id varies, because Ray hands
    that line to a shell. `env` reaches the driver and each of its Ray workers.
    """

    def __init__(self, dashboard_url: str, token: str | None, python: str, module: str = "workers.job") -> None:
        self.dashboard_url = dashboard_url
        self._command = f"{shlex.quote(python)} -P -m {shlex.quote(module)}"
        self._http = httpx.Client(
            base_url=dashboard_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT,
            limits=httpx.Limits(max_keepalive_connections=0),  # a kept connection may be stale: Ray was started anew
            trust_env=False,  # no proxy and no .netrc between us and the address that we were given
        )

    def capacity(self) -> Capacity:
        def total(answer: Any) -> Capacity:
            nodes = [n["resources_total"] for n in answer["data"]["result"]["result"] if n["state"] == "ALIVE"]
            return Capacity(cpus=sum(n.get("CPU", 0.0) for n in nodes), gpus=sum(n.get("GPU", 0.0) for n in nodes))

        return self._ask("GET", "/api/v0/nodes?detail=true&limit=10000", total)

    def submit(self, submission_id: str, job_id: str, env: Mapping[str, str]) -> None:
        request = {
            "submission_id": _checked(submission_id),
            "entrypoint": f"{self._command} {_checked(job_id)}",
            "runtime_env": {"env_vars": dict(env)},
        }
        try:
            self._ask("POST", "/api/jobs/", lambda answer: answer["submission_id"], json=request)
        except ClusterUnreachable:
            # "Already exists" is a bare HTTP 500 with a stack trace, so ask for the thing itself.
            if self.find(submission_id) is None:
                raise

    def find(self, submission_id: str) -> Submission | None:
        def read(job: Any) -> Submission:
            return Submission(submission_id, RayJobStatus(job["status"]), job["message"] or "")

        try:
            return self._ask("GET", f"/api/jobs/{_checked(submission_id)}", read)
        except _Unknown:
            return None

    def stop(self, submission_id: str) -> None:
        with contextlib.suppress(_Unknown):
            self._ask("POST", f"/api/jobs/{_checked(submission_id)}/stop", lambda answer: answer["stopped"])

    def live(self) -> list[str]:
        def read(jobs: Any) -> list[str]:  # a driver that nobody submitted is listed too, without a submission id
            return sorted(job["submission_id"] for job in jobs if job["submission_id"] and job["status"] in LIVE)

        return self._ask("GET", "/api/jobs/", read)

    def logs(self, submission_id: str) -> str:
        try:
            return self._ask("GET", f"/api/jobs/{_checked(submission_id)}/logs", lambda answer: str(answer["logs"]))
        except _Unknown:
            return ""

    def _ask(self, method: str, path: str, read: Callable[[Any], T], json: object = None) -> T:
        """`read` of Ray's decoded answer. Raises `_Unknown` when Ray says that the job in `path` does not exist."""
        try:
            response = self._http.request(method, path, json=json)
            if response.is_success:
                return read(response.json())
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            why = f"{type(error).__name__}: {error}".rstrip(": ")
            raise ClusterUnreachable(f"No answer from Ray at {self.dashboard_url} ({why}).") from error
        # Only Ray's own words mean "unknown". Any other 404 comes from somebody else at this address, and taking that
        # for an answer would start a second attempt beside a living one.
        if response.status_code == 404 and re.fullmatch(r"Job \S+ does not exist", response.text):
            raise _Unknown
        status = f"HTTP {response.status_code} to {method} {path}"
        if response.status_code in (401, 403):
            raise ClusterUnreachable(f"Ray at {self.dashboard_url} refused our token ({status}).")
        raise ClusterUnreachable(f"Ray at {self.dashboard_url} answered {status}.")


class _Unknown(Exception):
    pass


class FakeCluster:
    """A cluster in memory where nothing happens by itself: a submission is PENDING until `set_status` or `stop`.

    `submitted` and `stopped` record the calls that were answered, in order; an adopted submission is not recorded
    again. While `unreachable` is set, every call raises `ClusterUnreachable` and changes nothing.
    """

    def __init__(self) -> None:
        self.dashboard_url = "http://fake-ray.invalid"
        self.unreachable = False
        self.capacity_value = Capacity(cpus=8.0, gpus=0.0)
        self.submitted: list[tuple[str, str, dict[str, str]]] = []
        self.stopped: list[str] = []
        self.driver_logs: dict[str, str] = {}
        self._submissions: dict[str, Submission] = {}

    def set_status(self, submission_id: str, status: RayJobStatus, message: str = "") -> None:
        """What Ray says from now on; also of a submission that nobody made here, such as an orphan."""
        self._submissions[submission_id] = Submission(submission_id, status, message)

    def forget(self, submission_id: str) -> None:
        """As when Ray itself was started anew: it does not know the submission any more."""
        del self._submissions[submission_id]

    def capacity(self) -> Capacity:
        self._answer()
        return self.capacity_value

    def submit(self, submission_id: str, job_id: str, env: Mapping[str, str]) -> None:
        self._answer()
        request = (_checked(submission_id), _checked(job_id), dict(env))
        pending = Submission(submission_id, RayJobStatus.PENDING, "")
        if self._submissions.setdefault(submission_id, pending) is pending:
            self.submitted.append(request)

    def find(self, submission_id: str) -> Submission | None:
        self._answer()
        return self._submissions.get(_checked(submission_id))

    def stop(self, submission_id: str) -> None:
        self._answer()
        self.stopped.append(_checked(submission_id))
        if submission_id in self.live():
            self.set_status(submission_id, RayJobStatus.STOPPED)

    def live(self) -> list[str]:
        self._answer()
        return sorted(s.submission_id for s in self._submissions.values() if s.status in LIVE)

    def logs(self, submission_id: str) -> str:
        self._answer()
        return self.driver_logs.get(_checked(submission_id), "")

    def _answer(self) -> None:
        if self.unreachable:
            raise ClusterUnreachable("No answer from Ray (the fake was told so).")


def _checked(identifier: str) -> str:
    """Ids end up in a URL and in a shell line. They are ours: a wrong one is our own mistake, not a user's."""
    assert re.fullmatch(r"[a-z0-9-]+", identifier), identifier
    return identifier
