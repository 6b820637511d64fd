"""What must hold after every fault: nothing that was accepted is lost, doubled or left behind (DESIGN.md,
"Invariants").

`violations_of` is pure: evidence in, violations out. `read_jobs` and `broken_records` read the database for it,
`processes_with` the table of processes, `files_in` a folder.
"""

import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import psutil  # type: ignore[import-untyped]

from service.store.engine import Store
from service.store.epochs import epochs_of
from service.store.jobs import jobs_in
from service.store.trials import list_trials
from service.wire.states import TERMINAL, EndReason, JobState
from tests.databases import check_invariants

COUNTED = (EndReason.OWN, EndReason.HUNG, None)  # toward the attempts that a job is given


class Kind(StrEnum):
    """Which invariant is broken."""

    LOST = "lost"  # a job that was accepted is not there
    DOUBLED = "doubled"  # of a job, a trial, an epoch or a Ray job there are two
    LEFT_BEHIND = "left behind"  # a job that does not end, or a Ray job of one that has
    WRONG_STATE = "wrong state"  # it ended in another state than it should
    OTHER_RESULT = "other result"  # its epochs are not those of a job that nobody disturbed
    ATTEMPT_BURNT = "attempt burnt"  # counted against the job, for what is no fault of the job
    STALE_WRITE = "stale write"  # a superseded attempt, or a service that does not lead, has changed something
    BROKEN_RECORDS = "broken records"  # states, events, attempts or epochs do not follow each other as they must
    PROCESS_LEFT = "process left"
    FILE_LEFT = "file left"  # a temporary one


@dataclass(frozen=True)
class Violation:
    """One broken invariant: of what, and a sentence about it."""

    kind: Kind
    of: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.of}: {self.sentence}"


@dataclass(frozen=True)
class Expected:
    """What a job that was accepted must come to. `results`: of every epoch in order, None where they may be any;
    `own_losses`: attempts that may count against it, as the fault was in its own processes; `attempts`: how many it
    takes, None where it may be any number."""

    state: JobState = JobState.SUCCEEDED
    results: Sequence["Result"] | None = None
    own_losses: int = 0
    attempts: int | None = None


Result = tuple[float | None, ...]  # of an epoch: what tells its training from another, to the last bit


class Measured(Protocol):
    """An epoch, as reported or as read from the database."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def train_loss(self) -> float | None: ...
    @property
    def val_loss(self) -> float | None: ...
    @property
    def test_accuracy(self) -> float: ...


def result_of(epoch: Measured) -> Result:
    """What tells the training of this epoch from another."""
    return (epoch.learning_rate, epoch.train_loss, epoch.val_loss, epoch.test_accuracy)


@dataclass(frozen=True)
class EpochFound:
    """An epoch as the database has it."""

    label: str
    trial: int
    epoch: int
    result: Result


@dataclass(frozen=True)
class JobFound:
    """A job as the database has it; `losses` are the reasons of its lost attempts, `trials` (label, number) of each."""

    id: str
    state: JobState
    attempts: int
    losses: Sequence[EndReason | None]
    trials: Sequence[tuple[str, int]]
    epochs: Sequence[EpochFound]
    error: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What a fault has left.

    `accepted`: the jobs that clients were promised, by id. `live`: submissions that Ray still runs. `most_live`: the
    largest number of submissions of each job that Ray ever ran at a time. `processes`, `files`: those that are left,
    and should not be. `told`: violations that the harness saw happen.
    """

    jobs: Sequence[JobFound]
    accepted: Mapping[str, Expected]
    live: Sequence[str] = ()
    most_live: Mapping[str, int] = field(default_factory=dict)
    processes: Sequence[str] = ()
    files: Sequence[str] = ()
    told: Sequence[Violation] = ()


def violations_of(evidence: Evidence) -> list[Violation]:
    """Every invariant that does not hold, in words."""
    found = {job.id: job for job in evidence.jobs}
    violations = list(evidence.told)
    violations += [
        Violation(Kind.LOST, job_id, "accepted, and not there") for job_id in evidence.accepted.keys() - found
    ]
    for job in evidence.jobs:
        if job.id in evidence.accepted:
            violations += _violations_of_job(job, evidence.accepted[job.id])
        else:
            violations.append(Violation(Kind.DOUBLED, job.id, "a job that no client was told of"))
    violations += [Violation(Kind.LEFT_BEHIND, one, "Ray runs it still") for one in evidence.live]
    for job_id, number in evidence.most_live.items():
        if number > 1:
            violations.append(Violation(Kind.DOUBLED, job_id, f"{number} Ray jobs of it ran at a time"))
    violations += [Violation(Kind.PROCESS_LEFT, one, "still runs") for one in evidence.processes]
    violations += [Violation(Kind.FILE_LEFT, one, "is still there") for one in evidence.files]
    return violations


def _violations_of_job(job: JobFound, expected: Expected) -> list[Violation]:
    violations = []

    def broken(kind: Kind, sentence: str) -> None:
        violations.append(Violation(kind, job.id, sentence))

    if job.state not in TERMINAL and expected.state in TERMINAL:
        broken(Kind.LEFT_BEHIND, f"it is {job.state} and does not end")
    elif job.state is not expected.state:
        broken(Kind.WRONG_STATE, f"it is {job.state} ({job.error}), not {expected.state}")
    for trial, number in Counter(job.trials).items():
        if number > 1:
            broken(Kind.DOUBLED, f"trial {trial} is there {number} times")
    for key, number in Counter((one.label, one.trial, one.epoch) for one in job.epochs).items():
        if number > 1:
            broken(Kind.DOUBLED, f"epoch {key} is there {number} times")
    if expected.results is not None:
        results = [one.result for one in job.epochs]
        if results != list(expected.results):
            broken(Kind.OTHER_RESULT, f"its epochs came to {results}, not {list(expected.results)}")
    own = sum(reason in COUNTED for reason in job.losses)
    if own > expected.own_losses:
        broken(Kind.ATTEMPT_BURNT, f"{own} attempts count against it, not {expected.own_losses}")
    if expected.attempts is not None and job.attempts != expected.attempts:
        broken(Kind.DOUBLED, f"it took {job.attempts} attempts, not {expected.attempts}")
    return violations


# --- what is read for it -----------------------------------------------------------------------------


def read_jobs(store: Store) -> list[JobFound]:
    """Every job of the database, oldest first."""
    with store.read() as session:
        jobs = jobs_in(session, list(JobState))
        return [
            JobFound(
                id=job.id,
                state=job.state,
                attempts=job.attempt,
                losses=[attempt.reason for attempt in job.attempts if attempt.lost],
                trials=[(trial.label, trial.number) for trial in list_trials(session, job.id)],
                epochs=[EpochFound(e.label, e.trial, e.epoch, result_of(e)) for e in epochs_of(session, job.id)],
                error=job.error_message,
            )
            for job in jobs
        ]


def broken_records(store: Store) -> list[Violation]:
    """What the database's own records say against each other, by the check that every test of the store ends with."""
    try:
        check_invariants(store)
    except AssertionError as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line
        return [Violation(Kind.BROKEN_RECORDS, "the database", str(error) or str(line))]
    return []


def processes_with(mark: str) -> list[str]:
    """The command lines of the processes that have inherited the environment variable `mark` (NAME=value)."""
    name, _, value = mark.partition("=")
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def files_in(folder: Path, pattern: str) -> list[str]:
    """The files and folders below `folder` whose path fits the pattern."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))
