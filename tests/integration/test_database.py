"""The contract of the use cases and of the store: one suite, on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import IntegrityError, OperationalError

import migrations
from service import jobs
from service import store as queries
from service.errors import (
    ForerunError,
    IdempotencyConflict,
    InvalidInput,
    NotFound,
    RecordConflict,
    StaleAttempt,
    StateConflict,
)
from service.jobs import Claim
from service.records import EpochRecord, Outcome
from service.spec import JobSpec
from service.states import TERMINAL, JobState
from service.store import Store
from service.tables import Attempt, Base, Branch, Epoch, Event, IdempotencyKey, Job, Run, Trial
from tests.unit.service.reports import branch, checkpoint, epoch, warmup_epoch
from tests.unit.service.specs import small

pytest_plugins = ["tests.databases"]

S = JobState
SUCCESS = Outcome(state="succeeded")
FAILURE = Outcome(state="failed", code="diverged", message="every branch diverged")


# --- helpers -----------------------------------------------------------------------------------------


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate(small(**{"epochs": 3, **changes}))


def submit(db: Store, key: str | None = None, **changes: Any) -> str:
    return jobs.submit(db, spec(**changes), key)[0]


def claim(db: Store) -> Claim:
    found = jobs.claim_next(db)
    assert found is not None
    return found


def start(db: Store, **changes: Any) -> tuple[str, str]:
    """A running job: its id and report token."""
    job_id = submit(db, **changes)
    return job_id, begin(db, job_id)


def begin(db: Store, job_id: str) -> str:
    """Claim and start the next attempt of the job, the only one that waits; its report token."""
    claimed = claim(db)
    assert claimed.job_id == job_id
    return jobs.exchange_ticket(db, job_id, claimed.ticket).report_token


def lose(db: Store, job_id: str, *, max_attempts: int = 3) -> None:
    jobs.attempt_lost(db, job_id, job_of(db, job_id).attempt, "node died", max_attempts=max_attempts)


def job_of(db: Store, job_id: str) -> Job:
    with db.read() as session:
        return queries.get_job(session, job_id)


def state_of(db: Store, job_id: str) -> JobState:
    return job_of(db, job_id).job_state


def events_of(db: Store, job_id: str) -> list[tuple[int, str, dict[str, Any]]]:
    with db.read() as session:
        return [(e.number, e.kind, e.data) for e in queries.events_after(session, job_id, 0)]


def as_event(record: EpochRecord, attempt: int) -> dict[str, Any]:
    return {**record.model_dump(mode="json", exclude={"checkpoint"}), "attempt": attempt}


def epochs_of(db: Store, job_id: str) -> list[tuple[int, int, float]]:
    """(epoch, attempt, training loss)."""
    with db.read() as session:
        return [(e.epoch, e.attempt, e.train_loss) for e in queries.epochs_of(session, job_id)]


def count(db: Store, table: type[Base]) -> int:
    with db.read() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table))


def everything(db: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with db.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(sa.select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }


def bring(db: Store, state: JobState) -> str:
    """A job in that state."""
    job_id = submit(db, epochs=1)
    if state is S.QUEUED:
        return job_id
    if state is S.CANCELLED:
        jobs.cancel(db, job_id)
        return job_id
    claimed = claim(db)
    if state is S.SUBMITTING:
        return job_id
    token = jobs.exchange_ticket(db, job_id, claimed.ticket).report_token
    match state:
        case S.RECOVERING:
            lose(db, job_id)
        case S.CANCELLING:
            jobs.cancel(db, job_id)
        case S.SUCCEEDED:
            jobs.record_epoch(db, job_id, token, epoch(1))
            jobs.finish(db, job_id, token, SUCCESS)
        case S.FAILED:
            jobs.finish(db, job_id, token, FAILURE)
    return job_id


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls return or raise on purpose, each in a thread of its own, all let go at the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(30)
        try:
            return call()
        except ForerunError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(run, call) for call in calls]]


@pytest.mark.parametrize("state", S)
def test_bring_brings_a_job_into_every_state(store, state):
    assert state_of(store, bring(store, state)) is state


# --- submit --------------------------------------------------------------------------------------------


def test_submit_writes_the_job_its_event_and_its_key(store):
    before = datetime.now(UTC)
    wanted = spec(name="first", workers=2, global_batch_size=128, seed=2**63 - 1)
    job_id, new = jobs.submit(store, wanted, "key-1")
    assert new
    job = job_of(store, job_id)
    assert (job.id, job.name, job.model, job.dataset, job.workers) == (job_id, "first", "lenet5", "digits", 2)
    assert (job.state, job.attempt, job.attempts, job.last_event) == ("queued", 0, [], 1)
    assert (job.error_code, job.error_message, job.started_at, job.finished_at) == (None, None, None, None)
    assert before <= job.created_at <= datetime.now(UTC)
    assert JobSpec.model_validate_json(json.dumps(job.spec)) == wanted
    assert events_of(store, job_id) == [(1, "state", {"state": "queued"})]
    with store.read() as session:
        key = session.scalars(sa.select(IdempotencyKey)).one()
        assert (key.key, key.job_id) == ("key-1", job_id)
        run = session.scalars(sa.select(Run)).one()
        assert (run.job_id, run.method, [trial.number for trial in run.trials]) == (job_id, "stpt", [1])


def test_submit_writes_all_or_nothing(store, monkeypatch):
    def power_cut(*args: Any) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(jobs, "_append_event", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        submit(store, "key-1")
    monkeypatch.undo()
    assert set(map(len, everything(store).values())) == {0}
    assert jobs.submit(store, spec(), "key-1")[1]


def test_any_text_that_a_spec_allows_can_be_stored(store):
    name = "Übung 🚂 \u202e \x01 'quoted' \"%s\" \ufffd"
    assert job_of(store, submit(store, name=name)).name == name
    assert job_of(store, submit(store, name="ä" * 200)).name == "ä" * 200


@pytest.mark.parametrize("value", [1e-300, 5e-324, 1e6, 0.1, 1 / 3])
def test_numbers_come_back_as_they_were(store, value):
    job_id, token = start(store, epochs=1, initial_learning_rate=value)
    jobs.record_epoch(store, job_id, token, warmup_epoch(1, learning_rate=value, val_loss=value))
    assert job_of(store, job_id).spec["initial_learning_rate"] == value
    with store.read() as session:
        [row] = queries.epochs_of(session, job_id)
        assert (row.learning_rate, row.val_loss) == (value, value)


# --- idempotency -----------------------------------------------------------------------------------------


def test_the_same_key_and_spec_give_the_same_job(store):
    first = jobs.submit(store, spec(), "key-1")
    rows = everything(store)
    assert jobs.submit(store, spec(), "key-1") == (first[0], False)
    # the same spec, its defaults written out, its keys in another order
    written_out = JobSpec.model_validate(dict(reversed(spec().model_dump().items())))
    assert jobs.submit(store, written_out, "key-1") == (first[0], False)
    assert everything(store) == rows


def test_the_same_key_with_another_spec_is_a_conflict(store):
    job_id = submit(store, "key-1")
    rows = everything(store)
    with pytest.raises(IdempotencyConflict) as caught:
        submit(store, "key-1", seed=1)
    assert caught.value.detail == (f"Idempotency-Key key-1 was used for job {job_id} with another spec; use a new key")
    assert everything(store) == rows


def test_without_a_key_or_with_another_each_request_is_a_job(store):
    assert len({submit(store), submit(store), submit(store, "key-1"), submit(store, "key-2")}) == 4


def test_the_key_is_good_for_a_job_that_ended(store):
    job_id = submit(store, "key-1")
    jobs.cancel(store, job_id)
    assert jobs.submit(store, spec(), "key-1") == (job_id, False)


def test_eight_requests_with_one_key_at_once_are_one_job(store):
    answers = at_once(*[lambda: jobs.submit(store, spec(), "key-1")] * 8)
    assert len({job_id for job_id, _ in answers}) == 1
    assert sorted(new for _, new in answers) == [False] * 7 + [True]
    assert (count(store, Job), count(store, Event), count(store, IdempotencyKey)) == (1, 1, 1)


def test_eight_specs_with_one_key_at_once_are_one_job_and_seven_conflicts(store):
    answers = at_once(*[lambda seed=seed: jobs.submit(store, spec(seed=seed), "key-1") for seed in range(8)])
    assert Counter(type(answer) for answer in answers) == {tuple: 1, IdempotencyConflict: 7}
    assert count(store, Job) == 1


# --- claim -----------------------------------------------------------------------------------------------


def test_jobs_are_claimed_in_the_order_of_submission(store):
    submitted = [submit(store) for _ in range(3)]
    claims = [claim(store) for _ in range(3)]
    assert [c.job_id for c in claims] == submitted
    assert [c.submission_id for c in claims] == [f"{job_id}-a1" for job_id in submitted]
    assert {c.attempt for c in claims} == {1}
    assert len({c.ticket for c in claims}) == 3
    assert jobs.claim_next(store) is None


def test_a_claim_makes_an_attempt(store):
    job_id = submit(store)
    claimed = claim(store)
    job = job_of(store, job_id)
    assert (job.state, job.attempt, job.started_at) == ("submitting", 1, None)
    [attempt] = job.attempts
    assert (attempt.number, attempt.submission_id, attempt.ended_at) == (1, f"{job_id}-a1", None)
    assert claimed.ticket not in str(everything(store))  # a hash of it alone
    assert len(attempt.ticket_hash) == 64
    assert attempt.token_hash is None
    assert events_of(store, job_id)[1:] == [(2, "state", {"state": "submitting", "attempt": 1})]


def test_a_job_that_recovers_is_claimed_before_a_younger_one(store):
    old, _ = start(store)
    young = submit(store)
    lose(store, old)
    assert [(c.job_id, c.attempt) for c in (claim(store), claim(store))] == [(old, 2), (young, 1)]


@pytest.mark.parametrize("state", [state for state in S if state not in (S.QUEUED, S.RECOVERING)])
def test_nothing_else_is_claimed(store, state):
    bring(store, state)
    rows = everything(store)
    assert jobs.claim_next(store) is None
    assert everything(store) == rows


def test_the_oldest_job_waits_for_room_and_the_others_behind_it(store):
    large = submit(store, workers=4)
    submit(store, workers=1)
    assert jobs.claim_next(store, free=3, total=4) is None  # else small jobs could starve it for ever
    assert state_of(store, large) is S.QUEUED
    assert jobs.claim_next(store, free=4, total=4).job_id == large


@pytest.mark.parametrize("total", [3, 3.0, 3.2, 3.7])
def test_a_job_larger_than_the_cluster_is_passed_over(store, total):
    large = submit(store, workers=4)
    fits = submit(store, workers=3, global_batch_size=63)
    assert jobs.claim_next(store, free=total, total=total).job_id == fits
    assert jobs.claim_next(store, free=total, total=total) is None
    assert jobs.claim_next(store, free=8, total=8).job_id == large  # the cluster has grown


def test_twenty_jobs_and_eight_controllers_each_job_is_claimed_once(store):
    submitted = [submit(store) for _ in range(20)]

    def controller() -> list[Claim]:
        claims = []
        while (claimed := jobs.claim_next(store)) is not None:
            claims.append(claimed)
        return claims

    claims = [c for found in at_once(*[controller] * 8) for c in found]
    assert sorted(c.job_id for c in claims) == sorted(submitted)
    assert {c.attempt for c in claims} == {1}
    for c in claims:  # and every ticket is good
        assert jobs.exchange_ticket(store, c.job_id, c.ticket).attempt == 1


# --- ticket and token ------------------------------------------------------------------------------------


def test_a_ticket_buys_the_spec_and_a_token(store):
    wanted = spec(name="x")
    job_id = jobs.submit(store, wanted)[0]
    claimed = claim(store)
    before = datetime.now(UTC)
    assignment = jobs.exchange_ticket(store, job_id, claimed.ticket)
    assert (assignment.job_id, assignment.attempt) == (job_id, 1)
    assert JobSpec.model_validate_json(assignment.spec) == wanted
    job = job_of(store, job_id)
    assert job.job_state is S.RUNNING
    assert before <= job.started_at <= datetime.now(UTC)
    assert events_of(store, job_id)[2:] == [(3, "state", {"state": "running", "attempt": 1})]
    for secret in (claimed.ticket, assignment.report_token):
        assert secret not in str(everything(store))
    assert assignment.report_token != claimed.ticket


def refuses(error: type[ForerunError], db: Store, call: Callable[..., Any], *args: Any) -> str:
    """The call raises the error and changes nothing; the error's sentence."""
    rows = everything(db)
    with pytest.raises(error) as caught:
        call(db, *args)
    assert everything(db) == rows
    return caught.value.detail


def test_a_ticket_is_good_once(store):
    job_id = submit(store)
    ticket = claim(store).ticket
    jobs.exchange_ticket(store, job_id, ticket)
    detail = refuses(StaleAttempt, store, jobs.exchange_ticket, job_id, ticket)
    assert detail == f"this ticket is not for the live attempt of job {job_id}, or was used already"


def test_of_eight_who_bring_the_same_ticket_one_gets_the_token(store):
    job_id = submit(store)
    ticket = claim(store).ticket
    answers = at_once(*[lambda: jobs.exchange_ticket(store, job_id, ticket)] * 8)
    assert sum(isinstance(answer, StaleAttempt) for answer in answers) == 7
    [assignment] = [answer for answer in answers if not isinstance(answer, StaleAttempt)]
    jobs.record_epoch(store, job_id, assignment.report_token, epoch(1))


def test_a_ticket_is_good_for_its_own_job_and_attempt_alone(store):
    first, second = submit(store), submit(store)
    tickets = [claim(store).ticket for _ in range(2)]
    refuses(StaleAttempt, store, jobs.exchange_ticket, first, tickets[1])
    refuses(StaleAttempt, store, jobs.exchange_ticket, second, tickets[0])
    refuses(StaleAttempt, store, jobs.exchange_ticket, first, "")
    lose(store, first)
    refuses(StaleAttempt, store, jobs.exchange_ticket, first, tickets[0])  # recovering
    again = claim(store)
    refuses(StaleAttempt, store, jobs.exchange_ticket, first, tickets[0])  # attempt 2
    assert jobs.exchange_ticket(store, first, again.ticket).attempt == 2


@pytest.mark.parametrize("state", S)
def test_no_ticket_is_good_for_a_job_in_another_state(store, state):
    refuses(StaleAttempt, store, jobs.exchange_ticket, bring(store, state), "guess")


def test_a_ticket_of_a_cancelled_job_is_worthless(store):
    job_id = submit(store)
    ticket = claim(store).ticket
    jobs.cancel(store, job_id)
    refuses(StaleAttempt, store, jobs.exchange_ticket, job_id, ticket)


def test_reissue_makes_a_new_ticket_and_the_old_one_worthless(store):
    job_id = submit(store)
    old = claim(store)
    events = events_of(store, job_id)
    new = jobs.reissue_ticket(store, job_id, 1)
    assert (new.job_id, new.attempt, new.submission_id) == (old.job_id, old.attempt, old.submission_id)
    assert events_of(store, job_id) == events
    refuses(StaleAttempt, store, jobs.exchange_ticket, job_id, old.ticket)
    assert jobs.exchange_ticket(store, job_id, new.ticket).attempt == 1


@pytest.mark.parametrize("state", [state for state in S if state is not S.SUBMITTING])
def test_no_new_ticket_for_an_attempt_that_moved_on(store, state):
    job_id = bring(store, state)
    rows = everything(store)
    assert jobs.reissue_ticket(store, job_id, 1) is None
    assert everything(store) == rows


def test_no_new_ticket_for_an_earlier_attempt(store):
    job_id, _ = start(store)
    lose(store, job_id)
    ticket = claim(store).ticket
    assert jobs.reissue_ticket(store, job_id, 1) is None
    assert jobs.exchange_ticket(store, job_id, ticket).attempt == 2


# --- epochs ------------------------------------------------------------------------------------------------


def test_an_epoch_is_written_with_its_branches_and_event(store):
    job_id, token = start(store)
    record = epoch(
        1,
        checkpoint=checkpoint(1),
        train_loss=None,
        retries=1,
        branches=[
            branch(1, learning_rate=0.5, state="diverged", metric=None),
            branch(2, learning_rate=0.05, state="chosen", retry=1, iterations=2**62, samples=2**63 - 1),
        ],
    )
    before = datetime.now(UTC)
    jobs.record_epoch(store, job_id, token, record)
    with store.read() as session:
        [row] = queries.epochs_of(session, job_id)
        values = record.model_dump(exclude={"method", "trial", "branches"})
        assert {name: getattr(row, name) for name in values} == values
        assert (row.attempt, row.fingerprint) == (1, record.fingerprint())
        assert (row.trial.number, row.trial.run.method) == (1, "stpt")
        assert before <= row.recorded_at <= datetime.now(UTC)
        stored = [{name: getattr(b, name) for name in type(record.branches[0]).model_fields} for b in row.branches]
        assert stored == [b.model_dump() for b in record.branches]
    assert events_of(store, job_id)[3:] == [(4, "epoch", as_event(record, 1))]


def test_a_repeated_record_is_accepted_and_changes_nothing(store):
    job_id, token = start(store)
    for number in (1, 2):
        jobs.record_epoch(store, job_id, token, epoch(number))
    rows = everything(store)
    for number in (1, 2, 1):
        jobs.record_epoch(store, job_id, token, epoch(number))
    assert everything(store) == rows


def test_a_different_record_of_the_same_attempt_is_a_conflict(store):
    job_id, token = start(store)
    jobs.record_epoch(store, job_id, token, epoch(1))
    detail = refuses(RecordConflict, store, jobs.record_epoch, job_id, token, epoch(1, seconds=3.75))
    assert detail == f"epoch 1 of job {job_id} is recorded already, with other values"


def test_no_epoch_is_left_out(store):
    job_id, token = start(store, epochs=5)
    detail = refuses(RecordConflict, store, jobs.record_epoch, job_id, token, epoch(2))
    assert detail == f"epoch 2 of job {job_id} comes before the epochs left out"
    jobs.record_epoch(store, job_id, token, epoch(1))
    refuses(RecordConflict, store, jobs.record_epoch, job_id, token, epoch(3))
    jobs.record_epoch(store, job_id, token, epoch(2))


@pytest.mark.parametrize("number", [4, 2**31 - 1])
def test_no_epoch_beyond_the_last_is_recorded(store, number):
    job_id, token = start(store, epochs=3)
    for n in (1, 2, 3):
        jobs.record_epoch(store, job_id, token, epoch(n))
    detail = refuses(RecordConflict, store, jobs.record_epoch, job_id, token, epoch(number))
    assert detail == f"job {job_id} has 3 epochs; {number} is not one of them"
    jobs.finish(store, job_id, token, SUCCESS)


@pytest.mark.parametrize(
    ("changes", "trial"),
    [
        ({"trial": 2}, "trial 2 of method stpt"),
        ({"trial": 2**31 - 1}, "trial 2147483647 of method stpt"),
        ({"method": "sweep"}, "trial 1 of method sweep"),
    ],
)
def test_a_trial_that_the_job_does_not_have(store, changes, trial):
    job_id, token = start(store)
    detail = refuses(RecordConflict, store, jobs.record_epoch, job_id, token, epoch(1, **changes))
    assert detail == f"job {job_id} has no {trial}"


def test_a_later_attempt_replaces_epochs_and_goes_on(store):
    job_id, first = start(store, epochs=4)
    for number in (1, 2, 3):
        jobs.record_epoch(store, job_id, first, epoch(number, train_loss=1.0))
    lose(store, job_id)
    second = begin(store, job_id)
    # it resumes from the checkpoint after epoch 1
    replacement = epoch(2, train_loss=2.0, branches=[branch(1, learning_rate=0.05, state="chosen")])
    jobs.record_epoch(store, job_id, second, replacement)
    assert epochs_of(store, job_id) == [(1, 1, 1.0), (2, 2, 2.0), (3, 1, 1.0)]
    with store.read() as session:
        assert [len(row.branches) for row in queries.epochs_of(session, job_id)] == [2, 1, 2]
    assert count(store, Branch) == 5
    assert [(kind, data.get("epoch"), data["attempt"]) for _, kind, data in events_of(store, job_id)[-1:]] == [
        ("epoch", 2, 2)
    ]
    jobs.record_epoch(store, job_id, second, replacement)  # its repeat is one, too
    refuses(RecordConflict, store, jobs.record_epoch, job_id, second, epoch(2, train_loss=1.0))  # attempt 1's is gone
    for number in (3, 4):
        jobs.record_epoch(store, job_id, second, epoch(number, train_loss=2.0))
    assert epochs_of(store, job_id) == [(1, 1, 1.0), (2, 2, 2.0), (3, 2, 2.0), (4, 2, 2.0)]
    jobs.finish(store, job_id, second, SUCCESS)


def test_the_same_epoch_of_a_later_attempt_is_its_own(store):
    job_id, first = start(store)
    jobs.record_epoch(store, job_id, first, epoch(1))
    lose(store, job_id)
    jobs.record_epoch(store, job_id, begin(store, job_id), epoch(1))
    assert epochs_of(store, job_id) == [(1, 2, 1.25)]


@pytest.mark.parametrize("end", ["failed", "lost", "cancelled"])
def test_the_epochs_of_a_job_that_did_not_succeed_are_kept(store, end):
    job_id, token = start(store)
    for number in (1, 2):
        jobs.record_epoch(store, job_id, token, epoch(number))
    if end == "failed":
        jobs.finish(store, job_id, token, FAILURE)
    elif end == "lost":
        lose(store, job_id, max_attempts=1)  # with new epochs: it goes on
        begin(store, job_id)
        lose(store, job_id, max_attempts=1)
    else:
        jobs.cancel(store, job_id)
        jobs.confirm_cancelled(store, job_id)
    assert job_of(store, job_id).job_state in TERMINAL
    assert epochs_of(store, job_id) == [(1, 1, 1.25), (2, 1, 1.25)]
    assert count(store, Branch) == 4


@pytest.mark.parametrize("call", [jobs.record_epoch, jobs.finish])
def test_reports_are_fenced_by_the_token(store, call):
    report = epoch(1) if call is jobs.record_epoch else FAILURE
    job_id, first = start(store)
    _, others = start(store)
    detail = refuses(StaleAttempt, store, call, job_id, "guess", report)
    assert detail == f"this report token is not that of the live attempt of job {job_id} (running)"
    refuses(StaleAttempt, store, call, job_id, others, report)
    lose(store, job_id)
    refuses(StaleAttempt, store, call, job_id, first, report)  # recovering
    claimed = claim(store)
    refuses(StaleAttempt, store, call, job_id, first, report)  # attempt 2 is submitted
    refuses(StaleAttempt, store, call, job_id, claimed.ticket, report)  # a ticket is no token
    second = jobs.exchange_ticket(store, job_id, claimed.ticket).report_token
    refuses(StaleAttempt, store, call, job_id, first, report)  # attempt 2 runs
    refuses(StaleAttempt, store, call, job_id, claimed.ticket, report)
    call(store, job_id, second, report)


@pytest.mark.parametrize("end", [S.SUCCEEDED, S.FAILED, S.CANCELLING, S.CANCELLED, S.RECOVERING])
def test_no_epoch_is_recorded_once_the_attempt_is_over(store, end):
    job_id, token = start(store, epochs=1)
    jobs.record_epoch(store, job_id, token, epoch(1))
    if end is S.RECOVERING:
        lose(store, job_id)
    elif end in (S.SUCCEEDED, S.FAILED):
        jobs.finish(store, job_id, token, SUCCESS if end is S.SUCCEEDED else FAILURE)
    else:
        jobs.cancel(store, job_id)
        if end is S.CANCELLED:
            jobs.confirm_cancelled(store, job_id)
    assert state_of(store, job_id) is end
    refuses(StaleAttempt, store, jobs.record_epoch, job_id, token, epoch(1))


def test_eight_reports_of_one_epoch_at_once_are_one_epoch(store):
    job_id, token = start(store)
    answers = at_once(*[lambda: jobs.record_epoch(store, job_id, token, epoch(1))] * 8)
    assert answers == [None] * 8
    assert (count(store, Epoch), count(store, Branch)) == (1, 2)
    assert [kind for _, kind, _ in events_of(store, job_id)].count("epoch") == 1


# --- checkpoints -------------------------------------------------------------------------------------------


def run_and_lose(db: Store, job_id: str, epochs: dict[int, bool]) -> list[tuple[int, str]]:
    """One attempt that records those epochs (True: with a checkpoint) and dies; from where it could have gone on."""
    claimed = claim(db)
    assignment = jobs.exchange_ticket(db, job_id, claimed.ticket)
    for number, kept in epochs.items():
        reference = checkpoint(number, claimed.attempt) if kept else None
        jobs.record_epoch(db, job_id, assignment.report_token, epoch(number, checkpoint=reference))
    jobs.attempt_lost(db, job_id, claimed.attempt, "node died", max_attempts=9)
    return [(point.epoch, point.checkpoint.name) for point in assignment.resume]


def test_an_attempt_goes_on_from_the_newest_checkpoint(store):
    job_id = submit(store, epochs=5)
    assert run_and_lose(store, job_id, {1: True, 2: False, 3: True, 4: False}) == []
    with store.read() as session:
        rows = queries.epochs_of(session, job_id)
    assert [row.checkpoint for row in rows] == [checkpoint(1).model_dump(), None, checkpoint(3).model_dump(), None]
    claimed = claim(store)
    resume = jobs.exchange_ticket(store, job_id, claimed.ticket).resume
    assert [(p.epoch, p.val_accuracy, p.checkpoint) for p in resume] == [
        (3, 0.5, checkpoint(3)),
        (1, 0.5, checkpoint(1)),
    ]


def test_no_attempt_goes_on_from_a_trajectory_that_was_left(store):
    job_id = submit(store, epochs=5)
    run_and_lose(store, job_id, {1: True, 2: True, 3: True, 4: True})
    # attempt 2 finds the newest checkpoints damaged, goes back to epoch 1, and dies after it did epoch 2 again
    assert run_and_lose(store, job_id, {2: True}) == [(n, f"epoch-{n}-a1") for n in (4, 3, 2, 1)]
    assert run_and_lose(store, job_id, {}) == [(2, "epoch-2-a2"), (1, "epoch-1-a1")]
    # and an attempt that keeps none of its own leaves the old ones just as well
    assert run_and_lose(store, job_id, {2: False}) == [(2, "epoch-2-a2"), (1, "epoch-1-a1")]
    assert run_and_lose(store, job_id, {}) == [(1, "epoch-1-a1")]


def test_no_more_resume_points_than_anybody_needs(store):
    job_id = submit(store, epochs=30)
    run_and_lose(store, job_id, dict.fromkeys(range(1, 31), True))
    assert [number for number, _ in run_and_lose(store, job_id, {})] == list(range(30, 10, -1))


# --- finish ----------------------------------------------------------------------------------------------


def test_success_needs_every_epoch(store):
    job_id, token = start(store, epochs=2)
    detail = refuses(RecordConflict, store, jobs.finish, job_id, token, SUCCESS)
    assert detail == f"job {job_id} has 0 of 2 epochs recorded; report the others first"
    jobs.record_epoch(store, job_id, token, epoch(1))
    refuses(RecordConflict, store, jobs.finish, job_id, token, SUCCESS)
    jobs.record_epoch(store, job_id, token, epoch(2))
    before = datetime.now(UTC)
    jobs.finish(store, job_id, token, SUCCESS)
    job = job_of(store, job_id)
    assert (job.state, job.error_code, job.error_message) == ("succeeded", None, None)
    assert before <= job.finished_at == max(job.finished_at, job.started_at, job.created_at)
    assert job.attempts[0].ended_at is not None
    assert events_of(store, job_id)[-1] == (6, "state", {"state": "succeeded", "attempt": 1})


def test_a_failure_says_why(store):
    job_id, token = start(store)
    jobs.finish(store, job_id, token, FAILURE)
    job = job_of(store, job_id)
    assert (job.state, job.error_code, job.error_message) == ("failed", "diverged", "every branch diverged")
    assert job.attempts[0].message == "every branch diverged"
    why = {"state": "failed", "attempt": 1, "code": "diverged", "message": "every branch diverged"}
    assert events_of(store, job_id)[-1] == (4, "state", why)


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE], ids=["succeeded", "failed"])
def test_the_same_outcome_again_is_accepted_and_changes_nothing(store, outcome):
    job_id, token = start(store, epochs=1)
    jobs.record_epoch(store, job_id, token, epoch(1))
    jobs.finish(store, job_id, token, outcome)
    rows = everything(store)
    jobs.finish(store, job_id, token, outcome)
    assert everything(store) == rows
    refuses(StaleAttempt, store, jobs.finish, job_id, token, FAILURE if outcome is SUCCESS else SUCCESS)
    refuses(StaleAttempt, store, jobs.finish, job_id, "guess", outcome)


def test_a_new_attempt_may_finish_with_the_epochs_of_the_one_before(store):
    job_id, token = start(store, epochs=1)
    jobs.record_epoch(store, job_id, token, epoch(1))
    lose(store, job_id)  # between its last epoch and its outcome
    jobs.finish(store, job_id, begin(store, job_id), SUCCESS)
    assert state_of(store, job_id) is S.SUCCEEDED


def test_text_that_a_database_cannot_keep_is_made_harmless(store):
    """A Ray job's last words come with whatever it printed: the controller must be able to write them down."""
    job_id, token = start(store)
    jobs.attempt_lost(store, job_id, 1, "exit 1:\x00\udc80 é", max_attempts=2)
    job = job_of(store, job_id)
    assert job.attempts[0].message == "exit 1:\ufffd? é"
    token = begin(store, job_id)
    jobs.finish(store, job_id, token, Outcome(state="failed", code="worker_failed", message="\x00bang"))
    assert job_of(store, job_id).error_message == "\ufffdbang"
    assert events_of(store, job_id)[-1][2]["message"] == "\ufffdbang"


# --- cancel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", S)
def test_cancel_from_every_state(store, state):
    job_id = bring(store, state)
    if state in (S.SUCCEEDED, S.FAILED):
        detail = refuses(StateConflict, store, jobs.cancel, job_id)
        assert detail == f"job {job_id} has {state} already; only a job that has not ended can be cancelled"
        return
    ended = state in (S.QUEUED, S.CANCELLED)  # there is no Ray job whose end must be waited for
    expected = S.CANCELLED if ended else S.CANCELLING
    assert jobs.cancel(store, job_id) is expected
    rows = everything(store)
    assert jobs.cancel(store, job_id) is expected  # asking again is fine, and does nothing
    assert everything(store) == rows
    jobs.confirm_cancelled(store, job_id)
    job = job_of(store, job_id)
    assert (job.state, job.error_code) == ("cancelled", None)
    assert job.finished_at is not None
    assert jobs.claim_next(store) is None


@pytest.mark.parametrize("state", [state for state in S if state is not S.CANCELLING])
def test_an_unasked_confirmation_does_nothing(store, state):
    job_id = bring(store, state)
    rows = everything(store)
    jobs.confirm_cancelled(store, job_id)
    assert everything(store) == rows


def test_a_cancelled_attempt_is_over(store):
    job_id, token = start(store)
    jobs.cancel(store, job_id)
    assert job_of(store, job_id).attempts[0].ended_at is None  # Ray has yet to confirm
    refuses(StaleAttempt, store, jobs.finish, job_id, token, FAILURE)
    jobs.confirm_cancelled(store, job_id)
    [attempt] = job_of(store, job_id).attempts
    assert (attempt.message, attempt.ended_at is not None) == ("cancelled", True)


def test_a_cancelled_job_is_not_recovered(store):
    job_id, _ = start(store)
    jobs.cancel(store, job_id)
    rows = everything(store)
    lose(store, job_id)
    assert everything(store) == rows


def test_why_an_attempt_was_lost_is_not_forgotten_by_a_cancel(store):
    job_id, _ = start(store)
    lose(store, job_id)
    [lost] = job_of(store, job_id).attempts
    jobs.cancel(store, job_id)
    jobs.confirm_cancelled(store, job_id)
    [attempt] = job_of(store, job_id).attempts
    assert (attempt.message, attempt.ended_at) == ("node died", lost.ended_at)


@pytest.mark.parametrize(
    "call",
    [
        jobs.cancel,
        jobs.confirm_cancelled,
        lambda db, job_id: jobs.reissue_ticket(db, job_id, 1),
        lambda db, job_id: jobs.attempt_lost(db, job_id, 1, "x", max_attempts=1),
        lambda db, job_id: jobs.attempt_interrupted(db, job_id, 1),
        lambda db, job_id: jobs.exchange_ticket(db, job_id, "x"),
        lambda db, job_id: jobs.record_epoch(db, job_id, "x", epoch(1)),
        lambda db, job_id: jobs.finish(db, job_id, "x", FAILURE),
        job_of,
    ],
)
def test_a_job_that_does_not_exist(store, call):
    with pytest.raises(NotFound, match="there is no job job-0; GET /v1/jobs lists the jobs"):
        call(store, "job-0")


# --- recovery --------------------------------------------------------------------------------------------


def test_attempts_are_lost_until_the_last(store):
    job_id = submit(store)
    jobs_claims = []
    for number in (1, 2, 3):
        claimed = claim(store)
        jobs_claims.append(claimed)
        assert (claimed.attempt, claimed.submission_id) == (number, f"{job_id}-a{number}")
        if number != 2:  # attempt 2 dies before it fetches its spec
            jobs.exchange_ticket(store, job_id, claimed.ticket)
        jobs.attempt_lost(store, job_id, number, f"node {number} died", max_attempts=3)
    job = job_of(store, job_id)
    assert (job.state, job.error_code) == ("failed", "attempts_exhausted")
    assert job.error_message == "attempt 3 was lost, 3 in a row without a new epoch: node 3 died"
    assert [attempt.message for attempt in job.attempts] == ["node 1 died", "node 2 died", "node 3 died"]
    assert jobs.claim_next(store) is None
    assert [(number, data["state"], data.get("attempt")) for number, _, data in events_of(store, job_id)] == [
        (1, "queued", None),
        (2, "submitting", 1),
        (3, "running", 1),
        (4, "recovering", 1),
        (5, "submitting", 2),
        (6, "recovering", 2),
        (7, "submitting", 3),
        (8, "running", 3),
        (9, "failed", 3),
    ]


def test_losses_count_from_the_newest_attempt_that_recorded_an_epoch(store):
    job_id, token = start(store)
    jobs.record_epoch(store, job_id, token, epoch(1))
    lose(store, job_id, max_attempts=2)
    begin(store, job_id)
    lose(store, job_id, max_attempts=2)
    jobs.record_epoch(store, job_id, begin(store, job_id), epoch(1))  # from the start: the checkpoint was damaged
    lose(store, job_id, max_attempts=2)
    begin(store, job_id)
    lose(store, job_id, max_attempts=2)
    assert state_of(store, job_id) is S.RECOVERING
    begin(store, job_id)
    jobs.attempt_interrupted(store, job_id, 5)
    assert state_of(store, job_id) is S.RECOVERING
    begin(store, job_id)
    lose(store, job_id, max_attempts=2)
    assert state_of(store, job_id) is S.FAILED
    assert [attempt.lost for attempt in job_of(store, job_id).attempts] == [True, True, True, True, False, True]


def test_the_log_of_an_attempt(store):
    job_id, _ = start(store)
    assert get_log(store, job_id, 1) == (f"{job_id}-a1", None)
    assert unkept(store) == []
    lose(store, job_id)
    begin(store, job_id)
    assert unkept(store) == [f"{job_id}-a1"]
    jobs.keep_log(store, f"{job_id}-a1", "ends\x00 \udc80\n")
    assert get_log(store, job_id, 1) == (f"{job_id}-a1", "ends\ufffd ?\n")
    assert unkept(store) == []
    with pytest.raises(NotFound, match="has no attempt 3; GET /v1/jobs/"):
        get_log(store, job_id, 3)


def get_log(db: Store, job_id: str, attempt: int) -> tuple[str, str | None]:
    with db.read() as session:
        return queries.get_log(session, job_id, attempt)


def unkept(db: Store) -> list[str]:
    with db.read() as session:
        return list(queries.attempts_without_log(session))


def test_started_at_is_the_first_attempts(store):
    job_id, _ = start(store)
    started = job_of(store, job_id).started_at
    lose(store, job_id)
    begin(store, job_id)
    assert job_of(store, job_id).started_at == started


@pytest.mark.parametrize("state", [state for state in S if state not in (S.SUBMITTING, S.RUNNING)])
def test_only_a_live_attempt_can_be_lost(store, state):
    job_id = bring(store, state)
    rows = everything(store)
    for number in (0, 1, 2):
        jobs.attempt_lost(store, job_id, number, "late news", max_attempts=3)
        jobs.attempt_interrupted(store, job_id, number)
    assert everything(store) == rows


def test_late_news_of_an_earlier_attempt_is_ignored(store):
    job_id, _ = start(store)
    lose(store, job_id)
    begin(store, job_id)
    rows = everything(store)
    jobs.attempt_lost(store, job_id, 1, "late news", max_attempts=1)
    assert everything(store) == rows


# --- events ----------------------------------------------------------------------------------------------


def test_events_tell_what_happened(store):
    job_id, first = start(store, epochs=2)
    jobs.record_epoch(store, job_id, first, warmup_epoch(1))
    lose(store, job_id)
    second = begin(store, job_id)
    jobs.record_epoch(store, job_id, second, epoch(2))
    jobs.finish(store, job_id, second, SUCCESS)
    assert events_of(store, job_id) == [
        (1, "state", {"state": "queued"}),
        (2, "state", {"state": "submitting", "attempt": 1}),
        (3, "state", {"state": "running", "attempt": 1}),
        (4, "epoch", as_event(warmup_epoch(1), 1)),
        (5, "state", {"state": "recovering", "attempt": 1}),
        (6, "state", {"state": "submitting", "attempt": 2}),
        (7, "state", {"state": "running", "attempt": 2}),
        (8, "epoch", as_event(epoch(2), 2)),
        (9, "state", {"state": "succeeded", "attempt": 2}),
    ]
    assert job_of(store, job_id).last_event == 9


def test_events_after_a_number(store):
    job_id, token = start(store)
    jobs.record_epoch(store, job_id, token, epoch(1))
    start(store)  # another job's events are none of its own
    with store.read() as session:

        def numbers(after: int, **limit: int) -> list[int]:
            return [e.number for e in queries.events_after(session, job_id, after, **limit)]

        assert numbers(0) == [1, 2, 3, 4]
        assert numbers(2) == [3, 4]
        assert numbers(4) == numbers(99) == []
        assert numbers(1, limit=2) == [2, 3]


def test_events_are_numbered_without_gaps_when_many_write_at_once(store):
    running = [start(store, epochs=4) for _ in range(4)]

    def report(job_id: str, token: str) -> Callable[[], None]:
        def run() -> None:
            for number in (1, 2, 3, 4):
                jobs.record_epoch(store, job_id, token, epoch(number))
            jobs.finish(store, job_id, token, SUCCESS)

        return run

    assert at_once(*[report(*job) for job in running for _ in range(2)])  # everything is reported twice
    for job_id, _ in running:
        assert [(number, kind) for number, kind, _ in events_of(store, job_id)][3:] == [
            *((number, "epoch") for number in (4, 5, 6, 7)),
            (8, "state"),
        ]


# --- races -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    db: Store
    job_id: str
    token: str

    def cancel(self) -> Any:
        return jobs.cancel(self.db, self.job_id)

    def succeed(self) -> Any:
        return jobs.finish(self.db, self.job_id, self.token, SUCCESS)

    def fail(self) -> Any:
        return jobs.finish(self.db, self.job_id, self.token, FAILURE)

    def lose(self) -> Any:
        return jobs.attempt_lost(self.db, self.job_id, 1, "node died", max_attempts=1)

    def record(self) -> Any:
        return jobs.record_epoch(self.db, self.job_id, self.token, epoch(2))


@pytest.fixture
def ready(store) -> Callable[[], Running]:
    """Makes running jobs of two epochs, the first of which is recorded."""

    def make(epochs: int = 2) -> Running:
        job_id, token = start(store, epochs=epochs)
        jobs.record_epoch(store, job_id, token, epoch(1))
        return Running(store, job_id, token)

    return make


def test_cancel_and_finish_at_once_end_in_exactly_one_state(ready):
    for _ in range(50):
        job = ready(epochs=1)
        cancelled, finished = at_once(job.cancel, job.succeed)
        if isinstance(cancelled, StateConflict):
            assert finished is None
            assert state_of(job.db, job.job_id) is S.SUCCEEDED
        else:
            assert cancelled is S.CANCELLING
            assert isinstance(finished, StaleAttempt)
            jobs.confirm_cancelled(job.db, job.job_id)
            assert state_of(job.db, job.job_id) is S.CANCELLED
        states = [JobState(data["state"]) for _, kind, data in events_of(job.db, job.job_id) if kind == "state"]
        assert sum(state in TERMINAL for state in states) == 1


def test_everything_at_once_ends_in_exactly_one_state(ready):
    for _ in range(10):
        job = ready()
        at_once(job.cancel, job.fail, job.lose, job.record, job.succeed, job.cancel, job.record, job.fail)
        jobs.confirm_cancelled(job.db, job.job_id)
        states = [JobState(data["state"]) for _, kind, data in events_of(job.db, job.job_id) if kind == "state"]
        assert [state for state in states if state in TERMINAL] == [state_of(job.db, job.job_id)]


def test_cancel_and_claim_at_once(store):
    for _ in range(20):
        job_id = submit(store)
        cancelled, claimed = at_once(lambda job_id=job_id: jobs.cancel(store, job_id), lambda: jobs.claim_next(store))
        # no cancel is lost: whoever came second saw what the first had done
        assert (cancelled is S.CANCELLED) == (claimed is None)
        assert cancelled is (S.CANCELLED if claimed is None else S.CANCELLING)


# --- how writers exclude each other (SQLite's side: tests/unit/service/test_store.py) ------------------------


def until_somebody_waits_for_a_lock(db: Store) -> None:
    deadline = monotonic() + 30
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with db.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(waiting):
            assert monotonic() < deadline, "nobody waits"


def test_postgresql_a_second_writer_of_a_job_waits_for_the_first(postgres_store):
    db = postgres_store
    job_id = submit(db)
    with ThreadPoolExecutor(1) as pool:
        with db.write() as session:
            job = queries.get_job(session, job_id, lock=True)
            with pytest.raises(OperationalError, match="could not obtain lock"), db.write() as other:
                other.execute(sa.select(Job).where(Job.id == job_id).with_for_update(nowait=True))
            second = pool.submit(jobs.cancel, db, job_id)
            until_somebody_waits_for_a_lock(db)
            job.state = S.FAILED  # what the second must see
        with pytest.raises(StateConflict, match="has failed already"):
            second.result(30)


def test_postgresql_readers_do_not_wait(postgres_store):
    job_id = submit(postgres_store)
    with postgres_store.write() as session:
        queries.get_job(session, job_id, lock=True).name = "changed"
        session.flush()
        assert job_of(postgres_store, job_id).name == ""


def test_postgresql_a_job_in_other_hands_is_passed_over(postgres_store):
    first, second = submit(postgres_store), submit(postgres_store)
    with postgres_store.write() as session:
        queries.get_job(session, first, lock=True)
        assert jobs.claim_next(postgres_store).job_id == second
        assert jobs.claim_next(postgres_store) is None
    assert jobs.claim_next(postgres_store).job_id == first


# --- queries ---------------------------------------------------------------------------------------------


def page(db: Store, **filters: Any) -> tuple[list[str], str | None]:
    with db.read() as session:
        found = queries.list_jobs(session, **{"limit": 10, **filters})
    return [job.id for job in found.jobs], found.next_cursor


def test_pages_of_jobs_newest_first(store):
    ids = [submit(store) for _ in range(5)][::-1]
    first, cursor = page(store, limit=2)
    assert first == ids[:2]
    submit(store)  # a job submitted meanwhile does not shift the pages
    second, cursor = page(store, limit=2, cursor=cursor)
    assert second == ids[2:4]
    assert page(store, limit=2, cursor=cursor) == (ids[4:], None)
    assert page(store, limit=6)[1] is None
    assert page(store, limit=5)[1] is not None


def test_filters_of_jobs(store):
    plain = submit(store)
    named = submit(store, name="a name")
    folder = submit(store, model="resnet50", dataset={"name": "image-folder", "path": "birds"})
    jobs.cancel(store, plain)
    assert page(store) == ([folder, named, plain], None)
    assert page(store, state=[S.QUEUED]) == ([folder, named], None)
    assert page(store, state=[S.CANCELLED, S.FAILED]) == ([plain], None)
    assert page(store, model="resnet50") == page(store, dataset="image-folder") == ([folder], None)
    assert page(store, name="a name") == ([named], None)
    assert page(store, name="a nam") == page(store, model="lenet5", dataset="image-folder") == ([], None)
    assert page(store, model="lenet5", state=[S.QUEUED]) == ([named], None)


def test_filters_hold_on_every_page(store):
    ids = []
    for n in range(3):
        submit(store)
        ids.append(submit(store, name=f"{n}", model="resnet50"))
    first, cursor = page(store, model="resnet50", limit=2)
    assert (first, page(store, model="resnet50", limit=2, cursor=cursor)) == ([ids[2], ids[1]], ([ids[0]], None))


@pytest.mark.parametrize("cursor", ["", "x", "MA", "LTE", "é", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk", "🚂"])
def test_what_is_no_cursor(store, cursor):
    with pytest.raises(InvalidInput) as caught:
        page(store, cursor=cursor)
    [error] = caught.value.errors
    assert (error.field, error.value) == ("cursor", cursor)
    assert error.message == "not a cursor of this list; take next_cursor of the page before, or leave it out"


def test_live_jobs_are_those_that_have_not_ended(store):
    ids = {state: bring(store, state) for state in (*TERMINAL, S.RUNNING, S.CANCELLING, S.RECOVERING)}
    with store.read() as session:
        live = queries.live_jobs(session)
    assert [job.id for job in live] == [ids[S.RUNNING], ids[S.CANCELLING], ids[S.RECOVERING]]  # oldest first
    assert [len(job.attempts) for job in live] == [1, 1, 1]  # readable after the session


def test_epochs_and_branches_of_a_job(store):
    job_id, token = start(store)
    start(store)
    for record in (warmup_epoch(1), epoch(2), epoch(3)):
        jobs.record_epoch(store, job_id, token, record)
    with store.read() as session:
        epochs = queries.epochs_of(session, job_id)
        branches = queries.branches_of(session, job_id)
        assert queries.branches_of(session, job_id, epoch=1) == []
        assert [b.number for b in queries.branches_of(session, job_id, epoch=3)] == [1, 2]
        assert [e.epoch for e in queries.epochs_of(session, job_id, method="stpt", trial=1)] == [1, 2, 3]
        assert queries.epochs_of(session, job_id, method="sweep") == []
        assert queries.epochs_of(session, job_id, trial=2) == []
    # readable after the session
    assert [(e.epoch, len(e.branches), e.trial.run.method) for e in epochs] == [
        (1, 0, "stpt"),
        (2, 2, "stpt"),
        (3, 2, "stpt"),
    ]
    assert [(b.epoch_row.epoch, b.number, b.epoch_row.trial.number) for b in branches] == [
        (2, 1, 1),
        (2, 2, 1),
        (3, 1, 1),
        (3, 2, 1),
    ]


def test_the_latest_epoch_of_each_job(store):
    one, none, three = start(store), start(store), start(store)
    jobs.record_epoch(store, *one, epoch(1))
    for number in (1, 2, 3):
        jobs.record_epoch(store, *three, epoch(number))
    with store.read() as session:
        latest = queries.latest_epochs(session, [one[0], none[0], three[0]])
        assert {job_id: row.epoch for job_id, row in latest.items()} == {one[0]: 1, three[0]: 3}
        assert queries.latest_epochs(session, []) == {}


def test_submissions_whose_attempt_has_ended(store):
    job_id, _ = start(store)
    before = datetime.now(UTC)
    lose(store, job_id)
    after = datetime.now(UTC) + timedelta(microseconds=1)
    begin(store, job_id)
    ids = [f"{job_id}-a1", f"{job_id}-a2", "somebody-elses"]
    with store.read() as session:
        assert queries.ended_submissions(session, ids, before) == []
        assert queries.ended_submissions(session, ids, after) == [f"{job_id}-a1"]
        assert queries.ended_submissions(session, ids[1:], after) == []


def test_times_come_back_in_utc(store):
    job_id = submit(store)
    noon = datetime(2026, 7, 1, 12, 0, 0, 123456, timezone(timedelta(hours=5, minutes=30)))
    with store.write() as session:
        queries.get_job(session, job_id, lock=True).created_at = noon
    found = job_of(store, job_id).created_at
    assert found == noon
    assert found.isoformat() == "2026-07-01T06:30:00.123456+00:00"


def test_a_write_that_raises_leaves_nothing(store):
    job_id = submit(store)
    rows = everything(store)

    def write_half() -> None:
        with store.write() as session:
            queries.get_job(session, job_id, lock=True).name = "half"
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert everything(store) == rows


# --- what the tables themselves refuse --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "renamed"),
    [
        (Job, {"number": None}),
        (Attempt, {"id": None, "submission_id": "x"}),
        (Attempt, {"id": None, "number": 2}),
        (Run, {"id": None}),
        (Trial, {"id": None}),
        (Epoch, {"id": None}),
        (Branch, {"id": None}),
        (Event, {"id": None}),
        (IdempotencyKey, {}),
    ],
    ids=lambda value: value.__tablename__ if isinstance(value, type) else "",
)
def test_nothing_can_stand_there_twice(store, table, renamed):
    job_id, token = start(store, epochs=1)
    jobs.record_epoch(store, job_id, token, epoch(1))
    submit(store, "key-1", epochs=1)
    with store.read() as session:
        row = session.execute(sa.select(table.__table__).limit(1)).mappings().one()
    again = {**{key: value for key, value in row.items() if key not in renamed}, **_given(renamed)}
    with pytest.raises(IntegrityError, match=r"(?i)unique"), store.write() as session:
        session.execute(sa.insert(table.__table__).values(**again))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def test_nothing_hangs_in_the_air(store):
    now = datetime.now(UTC)
    rows = [
        Attempt(job_id="job-0", number=1, submission_id="x", created_at=now),
        Run(job_id="job-0", method="stpt"),
        Trial(run_id=1, number=1),
        Branch(**branch(1).model_dump(), epoch_id=1),
        Event(job_id="job-0", number=1, kind="state", data={}, created_at=now),
        IdempotencyKey(key="k", fingerprint="f", job_id="job-0", created_at=now),
    ]
    for row in rows:
        with pytest.raises(IntegrityError, match=r"(?i)foreign key"), store.write() as session:
            session.add(row)


def test_with_a_job_goes_all_that_hangs_on_it(store):
    kept, token = start(store)
    jobs.record_epoch(store, kept, token, epoch(1))
    rows = everything(store)
    job_id = submit(store, "key-1")
    jobs.record_epoch(store, job_id, begin(store, job_id), epoch(1))
    assert all(
        len(after) > len(before) for after, before in zip(everything(store).values(), rows.values(), strict=True)
    )
    with store.write() as session:
        session.execute(sa.delete(Job).where(Job.id == job_id))
    assert everything(store) == rows


# --- migrations ------------------------------------------------------------------------------------------


def alembic(db: Store, action: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with db.connect() as connection:
        config.attributes["connection"] = connection
        action(config, revision)
        connection.commit()


def tables(db: Store) -> set[str]:
    with db.connect() as connection:
        return set(sa.inspect(connection).get_table_names()) - {"alembic_version"}


def test_the_migrations_make_what_the_models_say(empty_store):
    assert tables(empty_store) == set()
    assert not empty_store.is_current()
    empty_store.migrate()
    assert empty_store.is_current()
    with empty_store.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert tables(empty_store) == set(Base.metadata.tables)


def test_migrating_again_changes_nothing(empty_store):
    empty_store.migrate()
    job_id = submit(empty_store, "key-1")
    rows = everything(empty_store)
    empty_store.migrate()
    assert everything(empty_store) == rows
    assert state_of(empty_store, job_id) is S.QUEUED


def test_down_to_the_base_leaves_no_table_and_up_again_works(empty_store):
    empty_store.migrate()
    submit(empty_store)
    alembic(empty_store, command.downgrade, "base")
    assert tables(empty_store) == set()
    assert not empty_store.is_current()
    alembic(empty_store, command.upgrade, "head")
    assert tables(empty_store) == set(Base.metadata.tables)
    submit(empty_store)


def test_no_row_is_lost_on_the_way_down_and_up(empty_store):
    """SQLite drops a column by making the table anew; with it must not go what hangs on its rows."""
    empty_store.migrate()
    job_id, token = start(empty_store)
    jobs.record_epoch(empty_store, job_id, token, epoch(1))
    rows = everything(empty_store)
    with empty_store.connect() as connection:
        version = MigrationContext.configure(connection).get_current_revision()
    while version != "0001":
        alembic(empty_store, command.downgrade, "-1")
        with empty_store.connect() as connection:
            version = MigrationContext.configure(connection).get_current_revision()
    empty_store.migrate()
    assert everything(empty_store) == rows


def test_a_migration_that_fails_leaves_nothing(empty_store, monkeypatch):
    def power_cut(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_table", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            empty_store.migrate()
    empty_store.migrate()
    submit(empty_store)


def test_postgresql_two_services_that_start_at_once_migrate_once(postgres):
    with postgres.database() as db, ThreadPoolExecutor(2) as pool:
        migrated, go_on = threading.Event(), threading.Event()

        def pause(connection: sa.Connection) -> None:
            if not migrated.is_set():
                migrated.set()
                assert go_on.wait(30)

        sa.event.listen(db._engine, "commit", pause)
        first = pool.submit(db.migrate)
        assert migrated.wait(30)  # everything is made, nothing is committed
        second = pool.submit(db.migrate)
        try:
            until_somebody_waits_for_a_lock(db)
        finally:
            go_on.set()
        first.result(30)
        second.result(30)
        assert db.is_current()
