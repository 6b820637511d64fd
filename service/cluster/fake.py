"""A cluster in memory that keeps the promise of `base.Cluster`, for tests of whoever talks to one."""

from collections.abc import Mapping

from service.cluster.base import Capacity, ClusterId, Overview, RayJobStatus, Submission, checked_id
from service.errors import ClusterUnreachable


class FakeCluster:
    """A cluster in memory where nothing happens by itself: a submission is PENDING until `set_status` or `stop`.

    `submitted` and `stopped` record the calls that were answered, in order; an adopted submission is not recorded
    again; `held` those of `hold`. While `unreachable` is set, every call raises `ClusterUnreachable` and changes
    nothing. `own`: whether it is a head that ends with its service.
    """

    def __init__(self, *, own: bool = False, session: str = "session-1") -> None:
        self.dashboard_url = "http://fake-ray.invalid"
        self.id = ClusterId(None if own else self.dashboard_url, session)
        self.held: list[float | None] = []
        self.unreachable = False
        self.capacity_value = Capacity(cpus=8.0, gpus=0.0)
        self.submitted: list[tuple[str, str, dict[str, str]]] = []
        self.stopped: list[str] = []
        self.driver_logs: dict[str, str] = {}
        self.nodes: dict[str, dict[str, bool]] = {}  # of a submission: whether each node that it was on lives
        self._submissions: dict[str, Submission] = {}

    def set_status(
        self, submission_id: str, status: RayJobStatus, message: str = "", error_type: str | None = None
    ) -> None:
        """Set what the cluster says of a submission from now on; also of one that nobody made here, such as an
        orphan."""
        self._submissions[submission_id] = Submission(submission_id, status, message, error_type)

    def forget(self, submission_id: str) -> None:
        """Let the cluster not know a submission any more, though it lives on."""
        del self._submissions[submission_id]

    def restart(self, session: str) -> None:
        """Start the head anew: with the old session all its submissions are gone."""
        self._submissions.clear()
        self.id = ClusterId(self.id.address, session)

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

    def overview(self) -> Overview:
        self._answer()
        return Overview(self.id, dict(self._submissions))

    def live(self) -> list[str]:
        """The ids of the submissions that are PENDING or RUNNING, sorted."""
        return Overview(self.id, self._submissions).live()

    def logs(self, submission_id: str) -> str:
        self._answer()
        return self.driver_logs.get(checked_id(submission_id), "")

    def nodes_of(self, submission_id: str) -> Mapping[str, bool]:
        self._answer()
        return dict(self.nodes.get(checked_id(submission_id), {}))

    def hold(self, seconds: float | None) -> None:
        self.held.append(seconds)

    def _answer(self) -> None:
        if self.unreachable:
            raise ClusterUnreachable("No answer from Ray (the fake was told so).")
