"""Each invariant is broken on purpose, and named."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from service.jobs import lifecycle as jobs
from service.store.engine import Store
from service.store.tables import Epoch, Event
from service.wire.states import EndReason, JobState
from tests.builders import train
from tests.faults import played
from tests.faults.invariants import (
    EpochFound,
    Evidence,
    Expected,
    JobFound,
    Kind,
    Violation,
    broken_records,
    files_in,
    processes_with,
    read_jobs,
    violations_of,
)
from tests.processes import wait_until

pytest_plugins = ["tests.databases"]

S = JobState
RESULTS = [(0.1, 1.0, 1.5, 0.4), (0.1, 0.5, 0.75, 0.7)]
EPOCHS = [EpochFound("stpt", 1, number, result) for number, result in enumerate(RESULTS, start=1)]
JOB = JobFound("job-1", S.SUCCEEDED, 1, losses=[], trials=[("stpt", 1)], epochs=EPOCHS)
EVIDENCE = Evidence(jobs=[JOB], accepted={"job-1": Expected(results=RESULTS, attempts=1)}, most_live={"job-1": 1})


def job(**changes: Any) -> Evidence:
    return replace(EVIDENCE, jobs=[replace(JOB, **changes)])


def test_what_went_well_breaks_none() -> None:
    assert violations_of(EVIDENCE) == []


@pytest.mark.parametrize(
    ("evidence", "kind", "sentence"),
    [
        (replace(EVIDENCE, jobs=[]), Kind.LOST, "accepted, and not there"),
        (replace(EVIDENCE, jobs=[JOB, replace(JOB, id="job-2")]), Kind.DOUBLED, "a job that no client was told of"),
        (job(trials=[("stpt", 1), ("stpt", 1)]), Kind.DOUBLED, "trial ('stpt', 1) is there 2 times"),
        (replace(EVIDENCE, most_live={"job-1": 2}), Kind.DOUBLED, "2 Ray jobs of it ran at a time"),
        (job(attempts=2), Kind.DOUBLED, "it took 2 attempts, not 1"),
        (job(state=S.RUNNING), Kind.LEFT_BEHIND, "it is running and does not end"),
        (replace(EVIDENCE, live=["job-1-a1"]), Kind.LEFT_BEHIND, "Ray runs it still"),
        (job(state=S.FAILED, error="why"), Kind.WRONG_STATE, "it is failed (why), not succeeded"),
        (job(losses=[EndReason.OWN]), Kind.ATTEMPT_BURNT, "1 attempts count against it, not 0"),
        (job(losses=[EndReason.HUNG]), Kind.ATTEMPT_BURNT, "1 attempts count against it, not 0"),
        (job(losses=[None, EndReason.NODE_LOST]), Kind.ATTEMPT_BURNT, "1 attempts count against it, not 0"),
        (replace(EVIDENCE, processes=["7 python -m api"]), Kind.PROCESS_LEFT, "still runs"),
        (replace(EVIDENCE, files=[".epoch-000002-a1"]), Kind.FILE_LEFT, "is still there"),
        (replace(EVIDENCE, told=[Violation(Kind.STALE_WRITE, "job-1", "x")]), Kind.STALE_WRITE, "x"),
    ],
)
def test_what_is_broken_is_named(evidence: Evidence, kind: Kind, sentence: str) -> None:
    [violation] = violations_of(evidence)
    assert (violation.kind, violation.sentence) == (kind, sentence)


def test_an_epoch_that_is_there_twice_is_doubled_and_another_result() -> None:
    violations = violations_of(job(epochs=[*EPOCHS, EPOCHS[1]]))
    assert [violation.kind for violation in violations] == [Kind.DOUBLED, Kind.OTHER_RESULT]
    assert violations[0].sentence == "epoch ('stpt', 1, 2) is there 2 times"


def test_one_bit_makes_another_result() -> None:
    other = replace(EPOCHS[1], result=(0.1, 0.5000000000000001, 0.75, 0.7))
    [violation] = violations_of(job(epochs=[EPOCHS[0], other]))
    assert violation.kind is Kind.OTHER_RESULT


def test_what_is_no_fault_of_the_job_burns_no_attempt_and_what_was_expected_neither() -> None:
    no_faults = [reason for reason in EndReason if reason not in (EndReason.OWN, EndReason.HUNG)]
    assert violations_of(job(losses=no_faults)) == []
    accepted = {"job-1": Expected(results=RESULTS, own_losses=1)}
    assert violations_of(replace(job(losses=[EndReason.OWN]), accepted=accepted)) == []


# --- what is read ------------------------------------------------------------------------------------


def test_a_database_is_read_as_it_is(sqlite_store: Store) -> None:
    state, records = played.START, []
    for epoch in (1, 2):
        state = played.next_state(state)
        records.append(played.record_of(epoch, state, 1))
    job_id, _ = train(sqlite_store, records)
    jobs.attempt_lost(sqlite_store, job_id, 1, "it died", max_attempts=3)
    assert read_jobs(sqlite_store) == [
        JobFound(
            job_id,
            S.RECOVERING,
            attempts=1,
            losses=[EndReason.OWN],
            trials=[("stpt", 1)],
            epochs=[EpochFound("stpt", 1, n, result) for n, result in enumerate(played.undisturbed(2), start=1)],
        )
    ]
    assert broken_records(sqlite_store) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda session: session.execute(delete(Event).where(Event.number == 2)),
        lambda session: session.execute(delete(Epoch).where(Epoch.epoch == 1)),
        lambda session: session.execute(update(Epoch).values(learning_rate=0.125)),
    ],
)
def test_records_that_contradict_each_other_are_named(sqlite_store: Store, damage: Callable[[Any], object]) -> None:
    first = played.next_state(played.START)
    train(sqlite_store, [played.record_of(1, first, 1), played.record_of(2, played.next_state(first), 1)])
    with sqlite_store.write() as session:
        damage(session)
    [violation] = broken_records(sqlite_store)
    assert violation.kind is Kind.BROKEN_RECORDS
    assert violation.sentence.startswith("assert ")


def test_a_process_that_is_left_is_found() -> None:
    mark = f"FORERUN_FAULTS={os.getpid()}"
    environment = os.environ | {"FORERUN_FAULTS": str(os.getpid())}
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment)
    try:
        [left] = wait_until(lambda: [one for one in processes_with(mark) if "input()" in one])
        assert left.startswith(f"{process.pid} ")
    finally:
        process.communicate(b"\n")
    assert processes_with(mark) == []


def test_files_that_are_left_are_found(tmp_path: Path) -> None:
    (tmp_path / "stpt-1" / ".epoch-000001-a1").mkdir(parents=True)
    assert files_in(tmp_path, "**/.epoch-*") == ["stpt-1/.epoch-000001-a1"]
