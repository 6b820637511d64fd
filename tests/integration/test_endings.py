"""Cancelled, lost and recovering jobs, events and races: one suite, on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import NotFound, StaleAttempt, StateConflict
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.backoff import backoff_seconds
from service.store import attempts as stored_attempts
from service.store import clock
from service.store.attempts import attempts_without_log
from service.store.engine import Store
from service.store.events import events_after
from service.wire.states import TERMINAL, EndReason, JobState
from tests.integration.jobs_in_sql import (
    FAILURE,
    SUCCESS,
    S,
    as_event,
    at_once,
    begin,
    bring,
    claim,
    events_of,
    everything,
    job_of,
    lose,
    refuses,
    start,
    state_of,
    submit,
)
from tests.unit.service.reports import epoch, warmup_epoch

pytest_plugins = ["tests.databases"]


@pytest.mark.parametrize("state", S)
def test_bring_brings_a_job_into_every_state(store, state):
    assert state_of(store, bring(store, state)) is state


# --- cancel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", S)
def test_cancel_from_every_state(store, state):
    job_id = bring(store, state)
    if state in (S.SUCCEEDED, S.FAILED):
        detail = refuses(StateConflict, store, jobs.cancel, job_id)
        assert detail == f"job {job_id} has {state} already; only a job that has not ended can be cancelled"
        return
    ended = state in (S.QUEUED, S.PAUSED, S.CANCELLED)  # there is no Ray job whose end must be waited for
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
    refuses(StaleAttempt, store, reports.finish, job_id, token, FAILURE)
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
        lambda db, job_id: reports.exchange_ticket(db, job_id, "x"),
        lambda db, job_id: reports.record_epoch(db, job_id, "x", epoch(1)),
        lambda db, job_id: reports.finish(db, job_id, "x", FAILURE),
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
            reports.exchange_ticket(store, job_id, claimed.ticket)
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
    reports.record_epoch(store, job_id, token, epoch(1))
    lose(store, job_id, max_attempts=2)
    begin(store, job_id)
    lose(store, job_id, max_attempts=2)
    reports.record_epoch(store, job_id, begin(store, job_id), epoch(1))  # from the start: the checkpoint was damaged
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


def lose_for(db: Store, job_id: str, reason: EndReason, *, max_attempts: int = 3) -> None:
    attempt = job_of(db, job_id).attempt
    jobs.attempt_lost(db, job_id, attempt, "Ray died", max_attempts=max_attempts, reason=reason)


@pytest.mark.parametrize("reason", [reason for reason in EndReason if reason not in jobs.COUNTED])
def test_what_is_no_fault_of_the_job_costs_no_attempt(store, reason):
    job_id = submit(store)
    for _ in range(3):
        begin(store, job_id)
        lose_for(store, job_id, reason, max_attempts=1)
        assert state_of(store, job_id) is S.RECOVERING
    begin(store, job_id)
    lose(store, job_id, max_attempts=1)
    job = job_of(store, job_id)
    assert [attempt.reason for attempt in job.attempts] == [reason, reason, reason, EndReason.OWN]
    assert job.error_message == "attempt 4 was lost, 1 in a row without a new epoch: node died"


def test_a_job_that_takes_its_node_with_it_is_given_up_in_the_end(store):
    job_id, token = start(store)
    reports.record_epoch(store, job_id, token, epoch(1))
    lose_for(store, job_id, EndReason.NODE_LOST)  # that one made progress
    for _ in range(49):
        begin(store, job_id)
        lose_for(store, job_id, EndReason.NODE_LOST)
    assert state_of(store, job_id) is S.RECOVERING
    begin(store, job_id)
    lose_for(store, job_id, EndReason.NODE_LOST)
    job = job_of(store, job_id)
    assert (job.state, job.error_code) == (S.FAILED, "attempts_exhausted")
    assert job.error_message == "attempt 51 was lost, 50 in a row without a new epoch: Ray died"


def test_a_lost_job_waits_longer_each_time_by_the_database_s_clock(store, monkeypatch):
    monkeypatch.setattr(jobs, "backoff_seconds", backoff_seconds)
    time = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(clock, "database_time", lambda _: time)
    job_id, token = start(store, epochs=2)
    reports.record_epoch(store, job_id, token, epoch(1))
    for in_a_row in (1, 1, 2, 3):  # the first to be lost had recorded an epoch
        lose_for(store, job_id, EndReason.CLUSTER_LOST)
        due = time + timedelta(seconds=backoff_seconds(job_id, in_a_row))
        assert job_of(store, job_id).not_before == due
        time = due - timedelta(milliseconds=1)
        assert jobs.claim_next(store) is None
        start(store)  # who waits keeps nobody
        time = due
        begin(store, job_id)
        assert job_of(store, job_id).not_before is None


def test_a_clock_that_is_set_back_keeps_no_lost_job_waiting(store, monkeypatch):
    monkeypatch.setattr(jobs, "backoff_seconds", backoff_seconds)
    time = datetime(2026, 1, 1, 12, tzinfo=UTC)
    monkeypatch.setattr(clock, "database_time", lambda _: time)
    job_id, _ = start(store)
    lose_for(store, job_id, EndReason.CLUSTER_LOST)
    assert jobs.claim_next(store) is None
    time -= timedelta(hours=2)
    assert jobs.claim_next(store).job_id == job_id


def test_the_database_s_own_clock_tells_the_time(store):
    with store.read() as session:
        told = clock.database_time(session)
    assert abs(told - datetime.now(UTC)) < timedelta(minutes=1)


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
        found = stored_attempts.get_log(session, job_id, attempt)
    return found.submission_id, found.log


def unkept(db: Store) -> list[str]:
    with db.read() as session:
        return list(attempts_without_log(session))


def test_started_at_is_the_first_attempts(store):
    job_id, _ = start(store)
    started = job_of(store, job_id).started_at
    lose(store, job_id)
    begin(store, job_id)
    assert job_of(store, job_id).started_at == started


@pytest.mark.parametrize("state", [state for state in S if state not in (S.SUBMITTING, S.RUNNING, S.PAUSING)])
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
    reports.record_epoch(store, job_id, first, warmup_epoch(1))
    lose(store, job_id)
    second = begin(store, job_id)
    reports.record_epoch(store, job_id, second, epoch(2))
    reports.finish(store, job_id, second, SUCCESS)
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
    reports.record_epoch(store, job_id, token, epoch(1))
    start(store)  # another job's events are none of its own
    with store.read() as session:

        def numbers(after: int, **limit: int) -> list[int]:
            return [e.number for e in events_after(session, job_id, after, **limit)]

        assert numbers(0) == [1, 2, 3, 4]
        assert numbers(2) == [3, 4]
        assert numbers(4) == numbers(99) == []
        assert numbers(1, limit=2) == [2, 3]


def test_events_are_numbered_without_gaps_when_many_write_at_once(store):
    running = [start(store, epochs=4) for _ in range(4)]

    def report(job_id: str, token: str) -> Callable[[], None]:
        def run() -> None:
            for number in (1, 2, 3, 4):
                reports.record_epoch(store, job_id, token, epoch(number))
            reports.finish(store, job_id, token, SUCCESS)

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
        return reports.finish(self.db, self.job_id, self.token, SUCCESS)

    def fail(self) -> Any:
        return reports.finish(self.db, self.job_id, self.token, FAILURE)

    def lose(self) -> Any:
        return jobs.attempt_lost(self.db, self.job_id, 1, "node died", max_attempts=1)

    def record(self) -> Any:
        return reports.record_epoch(self.db, self.job_id, self.token, epoch(2))


@pytest.fixture
def ready(store) -> Callable[[], Running]:
    """Makes running jobs of two epochs, the first of which is recorded."""

    def make(epochs: int = 2) -> Running:
        job_id, token = start(store, epochs=epochs)
        reports.record_epoch(store, job_id, token, epoch(1))
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
