"""How long a job waits after lost attempts."""

import pytest

from service.jobs.backoff import backoff_seconds


def test_it_doubles_up_to_a_minute_less_up_to_a_half():
    longest = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    for in_a_row, most in enumerate(longest, start=1):
        waits = [backoff_seconds(f"job-{number}", in_a_row) for number in range(200)]
        assert most / 2 <= min(waits) < 0.55 * most
        assert 0.95 * most < max(waits) <= most


def test_it_depends_on_the_job_and_the_number_alone():
    waits = [backoff_seconds("job-0123456789abcdef", in_a_row) for in_a_row in range(1, 8)]
    assert waits == pytest.approx([0.798, 1.745, 3.795, 4.399, 12.811, 25.619, 32.601], abs=5e-4)
    assert len({backoff_seconds(f"job-{number}", 7) for number in range(100)}) == 100


def test_it_never_overflows():
    assert 30 <= backoff_seconds("job-1", 10_000) <= 60
