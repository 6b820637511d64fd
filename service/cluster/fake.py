"""A cluster in memory that keeps the promise of `base.Cluster`, for tests of whoever talks to one."""

from collections.abc import Mapping

from service.cluster.base import LIVE, Capacity, RayJobStatus, Submission, checked_id
from service.errors import ClusterUnreachable


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
        """Set what the cluster says of a submission from now on; also of one that nobody made here, such as an
        orphan."""
        self._submissions[submission_id] = Submission(submission_id, status, message)

    def forget(self, submission_id: str) -> None:
        """Let the cluster not know a submission any more, as when Ray itself was started anew."""
        del self._submissions[submission_id]

    def capacity(self) -> Capacity:
        self._answer()
        return self.capacity_value

    def submit(self, submission_id: str, job_id: str, env: Mapping[str, str]) -> None:
        self._answer()
        request = (checked_id(submission_id), checked_id(job_id), dict(env))
        pending = Submission(submission_id, RayJobStatus.PENDING, "")
        if self._submissions.setdefault(submission_id, pending) is pending:
            self.submitted.append(request)

    def find(self, submission_id: str) -> Submission | None:
        self._answer()
        return self._submissions.get(checked_id(submission_id))

    def stop(self, submission_id: str) -> None:
        self._answer()
        self.stopped.append(checked_id(submission_id))
        if submission_id in self.live():
            self.set_status(submission_id, RayJobStatus.STOPPED)

    def live(self) -> list[str]:
        self._answer()
        return sorted(s.submission_id for s in self._submissions.values() if s.status in LIVE)

    def logs(self, submission_id: str) -> str:
        self._answer()
        return self.driver_logs.get(checked_id(submission_id), "")

    def _answer(self) -> None:
        if self.unreachable:
            raise ClusterUnreachable("No answer from Ray (the fake was told so).")
