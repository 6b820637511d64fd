"""What an SQLite database has of jobs at a moment, read past SQLAlchemy: quickly, and independently of the store."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from service.wire.states import WAITING, EndReason, JobState


@dataclass(frozen=True)
class JobRow:
    id: str
    number: int
    state: JobState
    attempt: int
    priority: int
    workers: int
    time_limit: int | None
    not_before: str | None
    retry_of: str | None
    error_code: str | None
    error_message: str | None
    last_event: int
    finished_at: str | None

    @property
    def place(self) -> tuple[int, int]:
        """By which jobs are submitted: the highest priority first, and of these the oldest."""
        return -self.priority, self.number

    def is_due(self, now: datetime) -> bool:
        """Whether its backoff is over; one of more than a minute is from before the clock was set back."""
        if self.not_before is None:
            return True
        wait = datetime.fromisoformat(self.not_before).replace(tzinfo=UTC) - now
        return not timedelta(0) < wait <= timedelta(seconds=60)


@dataclass(frozen=True)
class AttemptRow:
    number: int
    submission_id: str
    cluster: str | None
    created_at: str
    ended_at: str | None
    lost: int
    reason: EndReason | None
    message: str | None
    ticket_hash: str | None
    token_hash: str | None
    has_log: int

    def without_log(self) -> "AttemptRow":
        return replace(self, has_log=0)


@dataclass(frozen=True)
class Snapshot:
    jobs: Mapping[str, JobRow]
    attempts: Mapping[str, Sequence[AttemptRow]]
    epochs: Mapping[str, Mapping[int, tuple[int, str]]]  # epoch -> (attempt, fingerprint)
    events: Mapping[str, tuple[int, int]]  # how many, and the last one's number
    keys: Mapping[str, str]  # idempotency key -> job

    def queue(self, now: datetime, total: float) -> list[JobRow]:
        """The jobs that may be submitted to a cluster of so many workers, in their order."""
        waiting = [job for job in self.jobs.values() if job.state in WAITING and job.workers <= total]
        return sorted((job for job in waiting if job.is_due(now)), key=lambda job: job.place)


JOBS = (
    "SELECT id, number, state, attempt, priority, workers, time_limit, not_before, retry_of, error_code, "
    "error_message, last_event, finished_at FROM jobs"
)
ATTEMPTS = (
    "SELECT job_id, number, submission_id, cluster, created_at, ended_at, lost, reason, message, ticket_hash, "
    "token_hash, log IS NOT NULL FROM attempts ORDER BY number"
)
EPOCHS = (
    "SELECT runs.job_id, epoch, attempt, fingerprint FROM epochs JOIN trials ON trials.id = trial_id "
    "JOIN runs ON runs.id = run_id"
)


def read_snapshot(connection: sqlite3.Connection) -> Snapshot:
    jobs = {row[0]: JobRow(*row[:2], JobState(row[2]), *row[3:]) for row in connection.execute(JOBS)}
    attempts: dict[str, list[AttemptRow]] = {job_id: [] for job_id in jobs}
    for job_id, *row in connection.execute(ATTEMPTS):
        row[6] = row[6] and EndReason(row[6])
        attempts[job_id].append(AttemptRow(*row))
    epochs: dict[str, dict[int, tuple[int, str]]] = {job_id: {} for job_id in jobs}
    for job_id, epoch, attempt, fingerprint in connection.execute(EPOCHS):
        epochs[job_id][epoch] = attempt, fingerprint
    events = connection.execute("SELECT job_id, count(*), max(number) FROM events GROUP BY job_id")
    keys = dict(connection.execute("SELECT key, job_id FROM idempotency_keys"))
    return Snapshot(jobs, attempts, epochs, {row[0]: (row[1], row[2]) for row in events}, keys)
