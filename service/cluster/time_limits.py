"""How long the attempts of a job have taken, for its time limit, whatever the wall clock is set to meanwhile."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime

from service.store.records import Attempt, JobWithAttempts


class RunningTimes:
    """The running times of live attempts, by a clock that only goes forward from when they were first seen.

    What an attempt took before that (the service was started anew meanwhile), and what earlier attempts took, is the
    difference of the times that SQL has.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[
            str, tuple[float, float]
        ] = {}  # by submission id: when it was, and the seconds that it had run

    def begins(self, submission_id: str) -> None:
        """Note that an attempt begins now."""
        self._seen[submission_id] = (self._clock(), 0.0)

    def seconds(self, job: JobWithAttempts, now: datetime) -> float:
        """The seconds that the attempts of a job have taken together, of which the last one is live."""
        *earlier, live = job.attempts
        begun, before = self._seen.setdefault(live.submission_id, (self._clock(), _between(live, now)))
        return sum(_between(attempt, now) for attempt in earlier) + before + self._clock() - begun

    def forget_all_but(self, live: Iterable[str]) -> None:
        """Forget all attempts but those of these submission ids."""
        self._seen = {name: self._seen[name] for name in self._seen.keys() & set(live)}


def _between(attempt: Attempt, now: datetime) -> float:
    """The seconds from an attempt's beginning to its end, or to the time `now`; none where a clock was set back."""
    return max(0.0, ((attempt.ended_at or now) - attempt.created_at).total_seconds())


def has_limit(job: JobWithAttempts) -> bool:
    """Whether the time of a job is limited and runs: it has an attempt that has not ended."""
    last = job.last_attempt
    return job.time_limit is not None and last is not None and last.ended_at is None
