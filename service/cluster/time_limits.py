"""How long the attempts of a job have taken, for its time limit, whatever the wall clock is set to meanwhile."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime

from service.store.records import Attempt, JobWithAttempts

NOTED_EVERY_S = 30.0


class RunningTimes:
    """The running times of live attempts, by a clock that only goes forward from when they were first seen.

    What an attempt had run before that, under an earlier service, and what earlier attempts took, is what SQL has
    of it: the difference of its times, as far as that agrees with the seconds that were noted last.
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
        return sum(_seconds_of(attempt, now) for attempt in earlier) + self._of_live(live, now)

    def to_note(self, job: JobWithAttempts, now: datetime) -> float | None:
        """The seconds that the live attempt has run, where they are to be noted; None where SQL has nearly as many."""
        live = job.attempts[-1]
        seconds = self._of_live(live, now)
        return seconds if live.seconds is None or seconds - live.seconds >= NOTED_EVERY_S else None

    def _of_live(self, live: Attempt, now: datetime) -> float:
        begun, before = self._seen.setdefault(live.submission_id, (self._clock(), _seconds_of(live, now)))
        return before + self._clock() - begun

    def forget_all_but(self, live: Iterable[str]) -> None:
        """Forget all attempts but those of these submission ids."""
        self._seen = {name: self._seen[name] for name in self._seen.keys() & set(live)}


def _seconds_of(attempt: Attempt, now: datetime) -> float:
    """The seconds from an attempt's beginning to its end, or to `now`, none where a clock was set back. Where seconds
    are noted it had run as many, and no more than until the next note."""
    between = max(0.0, ((attempt.ended_at or now) - attempt.created_at).total_seconds())
    noted = attempt.seconds
    return between if noted is None else min(max(between, noted), noted + NOTED_EVERY_S)


def has_limit(job: JobWithAttempts) -> bool:
    """Whether the time of a job is limited and runs: it has an attempt that has not ended."""
    last = job.last_attempt
    return job.time_limit is not None and last is not None and last.ended_at is None
