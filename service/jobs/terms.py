"""The terms that a job runs under: what may change while it waits or runs, and is no part of what it computes.

They are no part of its spec: a spec with other terms is the same spec, for replays and idempotency keys too.
"""

from dataclasses import dataclass

from service.errors import StateConflict
from service.store.engine import Store
from service.store.jobs import get_job, set_terms
from service.wire.states import TERMINAL

LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100


@dataclass(frozen=True)
class Terms:
    """The terms of a job. Of the jobs that wait those with the highest `priority` are submitted first, and of these the
    oldest. `time_limit` is in seconds that its attempts may take together; None for no limit."""

    priority: int = 0
    time_limit: int | None = None


DEFAULT_TERMS = Terms()


def change_terms(db: Store, job_id: str, changes: dict[str, int | None]) -> None:
    """Change terms of a job, by their names. Raises NotFound when there is no such job, and StateConflict when it has
    ended."""
    with db.write() as session:
        job = get_job(session, job_id, lock=True)
        if job.state in TERMINAL:
            raise StateConflict(f"job {job_id} has {job.state}; only a job that has not ended can be changed")
        set_terms(session, job_id, changes)
