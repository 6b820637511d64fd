"""How much of the cluster one owner may take: jobs beyond that wait, and those of others go first.

A job that runs is never ended for it, and a job is accepted however many there are: so nothing is lost, and nobody has
to come back. Jobs of nobody, from a service without keys, have no quota.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.store.engine import Session
from service.store.records import AttemptUsage
from service.store.usage import attempts_since, jobs_by_owner
from service.wire.states import HOLDS_WORKERS

WINDOW = timedelta(hours=24)


@dataclass(frozen=True)
class Quota:
    """What one owner may have: jobs that run at once, and GPU-seconds in the last 24 hours; None: any number.

    A worker takes one GPU where its job asks for `device: cuda`, or for `auto` and the cluster `has_gpus`.
    """

    running_jobs: int | None = None
    gpu_seconds: int | None = None
    has_gpus: bool = False


NO_QUOTA = Quota()


def owners_who_wait(session: Session, quota: Quota, at: datetime) -> dict[str, str]:
    """The owners whose waiting jobs are not to be submitted at the time `at`, and why, in words that go on from "it
    waits: "."""
    found: dict[str, str] = {}
    if quota.running_jobs is not None:
        for owner, running in jobs_by_owner(session, HOLDS_WORKERS).items():
            if running >= quota.running_jobs:
                found[owner] = f"{running} jobs of {owner} run, and {quota.running_jobs} may at once"
    if quota.gpu_seconds is not None:
        for owner, used in gpu_seconds(session, quota, at).items():
            if used >= quota.gpu_seconds:
                found[owner] = (
                    f"jobs of {owner} took {used:.0f} GPU-seconds in the last 24 hours, and {quota.gpu_seconds} may be"
                )
    return found


def gpu_seconds(session: Session, quota: Quota, at: datetime) -> Counter[str]:
    """The GPU-seconds that the jobs of each owner took in the 24 hours before the time `at`."""
    used: Counter[str] = Counter()
    for attempt in attempts_since(session, at - WINDOW):
        used[attempt.owner] += _gpu_seconds(attempt, quota.has_gpus, at)
    return used


def _gpu_seconds(attempt: AttemptUsage, has_gpus: bool, at: datetime) -> int:
    if attempt.device == "cpu" or (attempt.device == "auto" and not has_gpus):
        return 0
    began, ended = max(attempt.created_at, at - WINDOW), attempt.ended_at or at
    return max(0, round((ended - began).total_seconds())) * attempt.workers
