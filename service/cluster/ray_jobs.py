"""What the controller asks of Ray: submit, list, stop, read the log, over Ray's REST API.

`Cluster` is the promise. `RayCluster` keeps it by talking to a Ray dashboard, `FakeCluster` in memory for the tests of
the controller; tests/integration/test_cluster.py holds both to it. A Ray of our own to talk to: local_head.py.

`RayCluster` speaks Ray's documented REST API instead of using its `JobSubmissionClient`: that one has no timeouts, and
lets `RAY_ADDRESS` in the environment override the address it was given.
"""

import contextlib
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx

from service.cluster.base import Capacity, ClusterId, Overview, RayJobStatus, Submission, checked_id
from service.errors import ClusterUnreachable

TIMEOUT = httpx.Timeout(30.0, connect=5.0)  # the first submission makes Ray start things: seconds


T = TypeVar("T")


class RayCluster:
    """A Ray cluster behind the dashboard at `dashboard_url`; `token` is its authentication token, if it wants one.

    The driver of a submission is `<python> -P -m <module> <job_id>`, where `python` is a path on Ray's head node; -P
    keeps it from importing what lies in the folder that Ray was started in. Only the job id varies, because Ray hands
    that line to a shell. `env` reaches the driver and each of its Ray workers.
    """

    def __init__(self, dashboard_url: str, token: str | None, python: str, module: str = "workers.job") -> None:
        self.dashboard_url = dashboard_url
        self._address: str | None = dashboard_url  # by which the cluster is known; None: a head of the service's own
        self._command = f"{shlex.quote(python)} -P -m {shlex.quote(module)}"
        self._http = httpx.Client(
            base_url=dashboard_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT,
            limits=httpx.Limits(max_keepalive_connections=0),  # a kept connection may be stale: Ray was started anew
            trust_env=False,  # no proxy and no .netrc between us and the address that we were given
        )

    def capacity(self) -> Capacity:
        nodes = [node["resources_total"] for node in self._list("nodes") if node["state"] == "ALIVE"]
        return Capacity(cpus=sum(n.get("CPU", 0.0) for n in nodes), gpus=sum(n.get("GPU", 0.0) for n in nodes))

    def submit(self, submission_id: str, job_id: str, env: Mapping[str, str]) -> None:
        request = {
            "submission_id": checked_id(submission_id),
            "entrypoint": f"{self._command} {checked_id(job_id)}",
            "runtime_env": {"env_vars": dict(env)},
        }
        try:
            self._ask("POST", "/api/jobs/", lambda answer: answer["submission_id"], json=request)
        except ClusterUnreachable:
            # "Already exists" is a bare HTTP 500 with a stack trace, so ask for the thing itself.
            if self.find(submission_id) is None:
                raise

    def find(self, submission_id: str) -> Submission | None:
        try:
            return self._ask("GET", f"/api/jobs/{checked_id(submission_id)}", lambda job: _read(submission_id, job))
        except _Unknown:
            return None

    def stop(self, submission_id: str) -> None:
        with contextlib.suppress(_Unknown):
            self._ask("POST", f"/api/jobs/{checked_id(submission_id)}/stop", lambda answer: answer["stopped"])

    def overview(self) -> Overview:
        def read(
            jobs: Any,
        ) -> dict[str, Submission]:  # a driver that nobody submitted is listed too, without such an id
            return {job["submission_id"]: _read(job["submission_id"], job) for job in jobs if job["submission_id"]}

        submissions = self._ask("GET", "/api/jobs/", read)
        session = self._ask("GET", "/api/version", lambda answer: str(answer["session_name"]))
        return Overview(ClusterId(self._address, session), submissions)

    def logs(self, submission_id: str) -> str:
        try:
            return self._ask("GET", f"/api/jobs/{checked_id(submission_id)}/logs", lambda answer: str(answer["logs"]))
        except _Unknown:
            return ""

    def nodes_of(self, submission_id: str) -> Mapping[str, bool]:
        try:
            path = f"/api/jobs/{checked_id(submission_id)}"
            ray_job = self._ask("GET", path, lambda job: job["job_id"])
        except _Unknown:
            return {}
        if not ray_job:  # its driver ended before it knew Ray
            return {}
        actors = self._list("actors", f"&filter_keys=job_id&filter_predicates=%3D&filter_values={checked_id(ray_job)}")
        alive = {node["node_id"] for node in self._list("nodes") if node["state"] == "ALIVE"}
        return {actor["node_id"]: actor["node_id"] in alive for actor in actors if actor["node_id"]}

    def hold(self, seconds: float | None) -> None:
        pass

    def _list(self, kind: str, filters: str = "") -> list[Any]:
        """What Ray's state API lists of that kind."""
        path = f"/api/v0/{kind}?detail=true&limit=10000{filters}"
        return self._ask("GET", path, lambda answer: list(answer["data"]["result"]["result"]))

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


def _read(submission_id: str, job: Any) -> Submission:
    return Submission(submission_id, RayJobStatus(job["status"]), job["message"] or "", job.get("error_type"))


class _Unknown(Exception):
    pass
