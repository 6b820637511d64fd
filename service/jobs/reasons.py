"""Why a job is in its state, in a sentence: worked out when somebody asks, from SQL and the controller's last look at
the cluster; nothing of it is stored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.jobs.quota import NO_QUOTA, Quota, owners_who_wait
from service.store import clock
from service.store.engine import Session
from service.store.jobs import workers_of
from service.store.queue import LONGEST_BACKOFF, queue_positions
from service.store.records import ShownJob
from service.wire.states import HOLDS_WORKERS, WAITING, JobState


@dataclass(frozen=True)
class Sight:
    """The cluster as the controller last saw it: the workers that it can take at once (inf while Ray has never
    answered), what each of them takes ("CPU" or "GPU"), why the last look failed, in a sentence, and what one owner may
    take of it."""

    workers: float = math.inf
    unit: str = "CPU"
    trouble: str | None = None
    quota: Quota = NO_QUOTA


@dataclass(frozen=True)
class Queue:
    """The queue as some jobs see it: their places in it by their ids, 1 for the next one; the workers that are free;
    the owners who have what they may have, and why; and the cluster."""

    sight: Sight
    positions: Mapping[str, int] = field(default_factory=dict)
    free: float = math.inf
    owners_who_wait: Mapping[str, str] = field(default_factory=dict)
    now: datetime | None = None  # by the database's clock


def look_at_queue(session: Session, jobs: Sequence[ShownJob], sight: Sight) -> Queue:
    """The queue as these jobs see it; SQL is asked as often for many as for one."""
    waiting = [job for job in jobs if job.state in WAITING]
    if not waiting:
        return Queue(sight)
    now = clock.database_time(session)
    passed_over = owners_who_wait(session, sight.quota, now)
    positions = queue_positions(session, waiting, now, sight.workers, passed_over)
    free = math.inf
    if any(positions.get(job.id, 1) == 1 for job in waiting):  # others wait for those before them
        free = max(0.0, sight.workers - workers_of(session, HOLDS_WORKERS))
    return Queue(sight, positions, free, passed_over, now)


def reason_of(job: ShownJob, queue: Queue) -> str | None:
    """Why the job is in its state; None where there is nothing to say: it trains, or has ended (`error` says why)."""
    attempt = job.last_attempt
    waiting = f"waits for {attempt.waits_for}" if attempt is not None and attempt.waits_for is not None else None
    match job.state:
        case JobState.QUEUED | JobState.RECOVERING:
            waits_for = None if _is_to_come_later(job, queue) else _waits_for(job, queue)
            return "; ".join(filter(None, [_after_what(job, queue), waits_for]))
        case JobState.SUBMITTING:
            return f"the workers of attempt {job.attempt} start"
        case JobState.RUNNING:
            return waiting
        case JobState.PAUSING:
            return "; ".join(filter(None, ["pauses behind its next epoch, or its search's next report", waiting]))
        case JobState.PAUSED:
            return "paused by its user"
        case JobState.CANCELLING:
            return "its workers are being ended"
    return None


def _is_to_come_later(job: ShownJob, queue: Queue) -> bool:
    if job.not_before is None or queue.now is None:
        return False
    return queue.now < job.not_before <= queue.now + LONGEST_BACKOFF


def _after_what(job: ShownJob, queue: Queue) -> str | None:
    """What the next attempt comes after, of a job that recovers, or was paused and resumed before its backoff was
    over."""
    last, later = job.last_attempt, _is_to_come_later(job, queue)
    if last is None or not (later or job.state is JobState.RECOVERING):
        return None
    when = f" at {job.not_before:%H:%M:%S} UTC" if job.not_before and later else ""
    return f"is tried again{when} after attempt {last.number} {'was lost' if last.lost else 'ended'}: {last.message}"


def _waits_for(job: ShownJob, queue: Queue) -> str:
    """What keeps a job in the queue."""
    sight, position = queue.sight, queue.positions.get(job.id)
    if sight.trouble is not None:
        return f"nothing can be submitted at present: {sight.trouble}"
    if job.workers > sight.workers:
        return f"waits for {_count(job.workers, sight.unit)}, the cluster has {sight.workers:g}"
    if job.owner is not None and job.owner in queue.owners_who_wait:
        return f"waits: {queue.owners_who_wait[job.owner]}"
    if position is not None and position > 1:
        before = position - 1
        return f"{before} {'job is' if before == 1 else 'jobs are'} before it, of higher or equal priority"
    if job.workers > queue.free:
        return f"waits for {_count(job.workers, sight.unit)}, {queue.free:g} {'is' if queue.free == 1 else 'are'} free"
    return "is submitted next"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
