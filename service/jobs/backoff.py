"""How long a job waits after a lost attempt: longer with every one in a row, and not as long as another job."""

import hashlib

from service.store.queue import LONGEST_BACKOFF

FIRST_S, LONGEST_S = 1.0, LONGEST_BACKOFF.total_seconds()


def backoff_seconds(job_id: str, in_a_row: int) -> float:
    """Seconds until the next attempt, after `in_a_row` (from 1) lost ones without a new epoch: 1, 2, 4, … 60, less up
    to a half, which depends on the job and on that number alone. So jobs that were lost together do not come back
    together."""
    longest = min(LONGEST_S, FIRST_S * 2.0 ** min(in_a_row - 1, 16))
    digest = hashlib.sha256(f"{job_id} {in_a_row}".encode()).digest()
    return longest * (1 - int.from_bytes(digest[:4]) / 2**33)
