"""Attempts that hang: their processes are there, and the training does not get on.

A heartbeat says how many iterations rank 0 has trained or evaluated; SQL has when they last grew, by the database's
clock. An attempt that gets on no more for `limit_seconds` hangs: a process or a thread of it is stopped or blocked, and
nothing else would tell. What it waits for and says so (a full disk, say) is no hang.

Nothing is held against an attempt for what happened to the service. It is watched from when this service began to look,
anew after each time that it did not: while the database, Ray or the service itself was away, heartbeats may not have
come. And before anything is done the API must have answered for a while, at the address that workers have.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import httpx

from service.cluster.base import LIVE, Overview, RayJobStatus
from service.store import clock
from service.store.engine import Store
from service.store.epochs import slowest_epoch
from service.store.records import JobWithAttempts
from service.wire.states import JobState

LOOK_S = 5.0  # between two looks
BROKEN_S = 30.0  # without a look: something was away
CONFIRM_S = 30.0  # a worker asks an API that was away every 15 s, and waits for an answer for 10 s
FLOOR_S = 300.0  # the first epoch begins with the start of processes, the data and what is compiled
SLOWEST_EPOCHS = 5

MAY_HANG = (JobState.SUBMITTING, JobState.RUNNING, JobState.PAUSING)


def limit_seconds(floor_seconds: float, slowest_epoch: float | None) -> float:
    """How long an attempt may not get on, by the slowest epoch that its job has recorded, in seconds."""
    return max(floor_seconds, SLOWEST_EPOCHS * (slowest_epoch or 0.0))


def stands_still(progress_at: datetime, watched_since: datetime, now: datetime) -> float:
    """For how many seconds an attempt has not got on while it was watched. All three are by the database's clock; a
    time after `now` is from before that clock was set back, and tells nothing."""
    began = max(progress_at, watched_since) if progress_at <= now else watched_since
    return (now - began).total_seconds()


class HangWatch:
    """Finds attempts that hang, for the controller that calls `look` in its passes.

    `api_answers` tells whether workers can reach the API. `monotonic` gives seconds by a clock that does not jump.
    """

    def __init__(
        self,
        db: Store,
        api_answers: Callable[[], bool],
        floor_seconds: float = FLOOR_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db, self._api_answers, self._floor, self._monotonic = db, api_answers, floor_seconds, monotonic
        self._since: datetime | None = None  # that this service has looked without a break
        self._last: tuple[datetime, float] | None = None  # the last look, by both clocks
        self._begun: dict[str, datetime] = {}  # when submissions without a ticket exchanged were first seen to run
        self._suspects: dict[str, float] = {}  # and since when

    def look(self, jobs: Sequence[JobWithAttempts], overview: Overview) -> Mapping[str, str]:
        """The submissions of `jobs` that hang, with a sentence on each, as far as one may be sure; to be called in
        every pass, and looking at intervals."""
        monotonic = self._monotonic()
        if not jobs or (self._last is not None and monotonic - self._last[1] < LOOK_S):
            return {}
        with self._db.read() as session:
            now = clock.database_time(session)
        self._note_breaks(now, monotonic)
        still = dict(filter(None, (self._standing_still(job, overview, now) for job in jobs)))
        if not still:
            self._suspects.clear()
            return {}
        if not self._api_answers():
            self._since, self._suspects = now, {}
            return {}
        self._suspects = {submission_id: self._suspects.get(submission_id, monotonic) for submission_id in still}
        return {one: still[one] for one, since in self._suspects.items() if monotonic - since >= CONFIRM_S}

    def _note_breaks(self, now: datetime, monotonic: float) -> None:
        """Begin to watch anew where this service has not looked for a while, or the database's clock has jumped."""
        if self._last is not None:
            by_the_database, by_ours = (now - self._last[0]).total_seconds(), monotonic - self._last[1]
            whole = by_ours < BROKEN_S and abs(by_the_database - by_ours) < BROKEN_S
        if self._last is None or not whole:
            self._since, self._begun, self._suspects = now, {}, {}
        self._last = now, monotonic

    def _standing_still(self, job: JobWithAttempts, overview: Overview, now: datetime) -> tuple[str, str] | None:
        """The submission of a job that has not got on for too long, with a sentence on it; None where it has."""
        attempt, since = job.last_attempt, self._since
        if attempt is None or since is None or job.state not in MAY_HANG or attempt.ended_at is not None:
            return None
        found = overview.submissions.get(attempt.submission_id)
        if found is None or found.status not in LIVE:
            return None
        progress_at = attempt.progress_at
        if progress_at is None:
            if found.status is not RayJobStatus.RUNNING:
                return None
            progress_at = self._begun.setdefault(attempt.submission_id, now)
        seconds = stands_still(progress_at, since, now)
        if seconds <= self._floor:
            return None
        with self._db.read() as session:
            limit = limit_seconds(self._floor, slowest_epoch(session, job.id))
        if seconds <= limit:
            return None
        done = "has not begun" if not attempt.iterations else f"stands at iteration {attempt.iterations}"
        return attempt.submission_id, f"it hung: the training {done}, for {seconds:.0f} s (the limit is {limit:.0f} s)"


def answers_at(url: str) -> bool:
    """Whether the API answers at this URL, at which workers report."""
    try:
        return httpx.get(f"{url}/healthz", timeout=5.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False
