"""A slice of the faults of `python -m tests.faults`, and its quick run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.jobs import lifecycle
from service.jobs.backoff import backoff_seconds
from tests.faults.bench import Bench
from tests.faults.runner import FAULTS, counts_of, run, summary

pytest_plugins = ["tests.databases"]

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def as_users_have_it(no_backoff: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the wait before another attempt, which other tests do without."""
    monkeypatch.setattr(lifecycle, "backoff_seconds", backoff_seconds)


def test_a_slice_of_the_faults_breaks_no_invariant() -> None:
    with Bench(with_postgres=False) as bench:
        outcomes = run(counts_of("slice"), 1, bench)
    assert [str(violation) for outcome in outcomes.values() for violation in outcome.violations] == []
    assert {name: outcome.injected for name, outcome in outcomes.items()} == {
        fault.name: fault.slice for fault in FAULTS if fault.slice
    }
    assert summary(outcomes)["injected"] == sum(fault.slice for fault in FAULTS)


@pytest.mark.long
@pytest.mark.timeout(1800)  # 8 minutes on two quiet cores
def test_the_quick_run_breaks_no_invariant() -> None:
    command = [sys.executable, "-m", "tests.faults", "--quick"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["violations"] == 0, run.stderr[-8000:]
    assert {name: one["injected"] for name, one in result["by_fault"].items()} == {
        **counts_of("quick"),
        "what is left": 0,
    }
    assert result["injected"] == sum(counts_of("quick").values())
