"""Whether a job waits for workers that the Ray cluster has not given it yet, because somebody else has them."""

import ray
from ray.util.state import list_placement_groups

TIMEOUT_S = 5


class FreeWorkers:
    """Called, it says what a job waits for before its processes start, in words; None once they have been given
    workers. In the driver of the job alone."""

    def __init__(self) -> None:
        self._given = False

    def __call__(self) -> str | None:
        if self._given:
            return None
        mine: list[tuple[str, str, str | bool | int | float]] = [
            ("creator_job_id", "=", ray.get_runtime_context().get_job_id())
        ]
        states = {group.state for group in list_placement_groups(filters=mine, timeout=TIMEOUT_S)}
        self._given = "CREATED" in states
        return "free workers in the Ray cluster" if "PENDING" in states and not self._given else None
