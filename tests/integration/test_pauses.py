"""Pauses in every state, and what the workers are told: one suite, on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

import pytest

from service.errors import NotFound, RecordConflict, StaleAttempt, StateConflict
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.pause import confirm_paused, pause, resume
from service.wire.worker import TrialRecord
from tests.integration.jobs_in_sql import (
    FAILURE,
    PAUSED,
    SUCCESS,
    S,
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
from tests.unit.service.reports import epoch

pytest_plugins = ["tests.databases"]

ENDING = (S.SUCCEEDED, S.FAILED, S.CANCELLED, S.CANCELLING)
AFTER_A_PAUSE = {
    S.QUEUED: S.PAUSED,
    S.RECOVERING: S.PAUSED,
    S.PAUSED: S.PAUSED,
    S.SUBMITTING: S.PAUSING,
    S.RUNNING: S.PAUSING,
    S.PAUSING: S.PAUSING,
}


@pytest.mark.parametrize("state", S)
def test_a_pause_in_every_state(store, state):
    job_id = bring(store, state)
    if state in ENDING:
        detail = refuses(StateConflict, store, pause, job_id)
        assert detail == f"job {job_id} is {state}; only a job that has not ended can be paused"
        return
    assert pause(store, job_id) is AFTER_A_PAUSE[state]
    rows = everything(store)
    assert pause(store, job_id) is AFTER_A_PAUSE[state]  # asking again is fine, and does nothing
    assert everything(store) == rows
    confirm_paused(store, job_id)
    assert state_of(store, job_id) is S.PAUSED
    assert jobs.claim_next(store) is None
    assert not any(attempt.lost for attempt in job_of(store, job_id).attempts) or state is S.RECOVERING


@pytest.mark.parametrize("state", S)
def test_a_resume_in_every_state(store, state):
    job_id = bring(store, state)
    if state in ENDING:
        detail = refuses(StateConflict, store, resume, job_id)
        assert detail == f"job {job_id} is {state}; only a paused job can be resumed"
    elif state is S.PAUSING:
        detail = refuses(StateConflict, store, resume, job_id)
        assert detail == f"job {job_id} is still pausing; resume it when it is paused"
    else:
        assert resume(store, job_id) is (S.QUEUED if state is S.PAUSED else state)
        rows = everything(store)
        assert resume(store, job_id) is state_of(store, job_id)
        assert everything(store) == rows


@pytest.mark.parametrize("state", [state for state in S if state is not S.PAUSING])
def test_an_unasked_confirmation_does_nothing(store, state):
    job_id = bring(store, state)
    rows = everything(store)
    confirm_paused(store, job_id)
    assert everything(store) == rows


@pytest.mark.parametrize("call", [pause, resume, confirm_paused])
def test_a_job_that_does_not_exist(store, call):
    with pytest.raises(NotFound):
        call(store, "job-0")


def test_the_answer_to_a_report_tells_of_the_pause(store):
    job_id, token = start(store)
    assert not reports.record_epoch(store, job_id, token, epoch(1)).pause
    pause(store, job_id)
    assert reports.record_epoch(store, job_id, token, epoch(1)).pause  # a repeat is answered alike
    assert reports.record_epoch(store, job_id, token, epoch(2)).pause
    record = TrialRecord(label="stpt", trial=1, seed=0, epochs=3, state="running")
    assert reports.record_trial(store, job_id, token, record).pause
    reports.finish(store, job_id, token, PAUSED)
    assert state_of(store, job_id) is S.PAUSING  # its Ray job has yet to end
    rows = everything(store)
    reports.finish(store, job_id, token, PAUSED)
    assert everything(store) == rows
    refuses(StaleAttempt, store, reports.record_epoch, job_id, token, epoch(3))
    confirm_paused(store, job_id)
    refuses(StaleAttempt, store, reports.record_epoch, job_id, token, epoch(3))
    [attempt] = job_of(store, job_id).attempts
    assert (attempt.message, attempt.lost) == ("paused", False)


def test_a_paused_job_goes_on_from_its_last_epoch(store):
    job_id, token = start(store, epochs=2)
    pause(store, job_id)
    reports.record_epoch(store, job_id, token, epoch(1))
    reports.finish(store, job_id, token, PAUSED)
    confirm_paused(store, job_id)
    resume(store, job_id)
    again = begin(store, job_id)
    reports.record_epoch(store, job_id, again, epoch(2))
    reports.finish(store, job_id, again, SUCCESS)
    states = [data["state"] for _, kind, data in events_of(store, job_id) if kind == "state"]
    assert states == [
        *("queued", "submitting", "running", "pausing", "paused"),
        *("queued", "submitting", "running", "succeeded"),
    ]


@pytest.mark.parametrize(("outcome", "state"), [(SUCCESS, S.SUCCEEDED), (FAILURE, S.FAILED)])
def test_a_job_may_end_instead_of_pausing(store, outcome, state):
    job_id, token = start(store, epochs=1)
    pause(store, job_id)
    reports.record_epoch(store, job_id, token, epoch(1))
    reports.finish(store, job_id, token, outcome)
    assert state_of(store, job_id) is state


def test_a_pause_that_nobody_asked_for_is_refused(store):
    job_id, token = start(store)
    assert refuses(RecordConflict, store, reports.finish, job_id, token, PAUSED) == (
        f"nobody has asked for a pause of job {job_id}"
    )


def test_a_worker_that_dies_while_its_job_pauses_leaves_it_paused(store):
    job_id, _ = start(store)
    pause(store, job_id)
    lose(store, job_id, max_attempts=1)
    job = job_of(store, job_id)
    assert (job.state, job.attempts[0].message, job.attempts[0].lost) == (S.PAUSED, "node died", True)


def test_a_service_that_stops_while_a_job_pauses_leaves_it_paused(store):
    job_id, _ = start(store)
    pause(store, job_id)
    jobs.attempt_interrupted(store, job_id, 1)
    assert state_of(store, job_id) is S.PAUSED


def test_a_ticket_is_worth_nothing_while_its_job_pauses(store):
    job_id = submit(store)
    claimed = claim(store)
    pause(store, job_id)
    refuses(StaleAttempt, store, reports.exchange_ticket, job_id, claimed.ticket)


def test_a_pausing_job_can_be_cancelled(store):
    job_id, token = start(store)
    pause(store, job_id)
    assert jobs.cancel(store, job_id) is S.CANCELLING
    refuses(StaleAttempt, store, reports.finish, job_id, token, PAUSED)
    jobs.confirm_cancelled(store, job_id)
    assert state_of(store, job_id) is S.CANCELLED


def test_pauses_and_ends_at_once_leave_one_of_both(store):
    for _ in range(10):
        job_id, token = start(store, epochs=1)
        reports.record_epoch(store, job_id, token, epoch(1))
        at_once(
            lambda job_id=job_id: pause(store, job_id),
            lambda job_id=job_id, token=token: reports.finish(store, job_id, token, SUCCESS),
            lambda job_id=job_id, token=token: reports.finish(store, job_id, token, PAUSED),
            lambda job_id=job_id: jobs.cancel(store, job_id),
        )
        confirm_paused(store, job_id)
        jobs.confirm_cancelled(store, job_id)
        assert state_of(store, job_id) in (S.PAUSED, S.SUCCEEDED, S.CANCELLED)
