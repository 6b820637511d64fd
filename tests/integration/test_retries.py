"""Retries take over what is recorded, and leave the job that ended as it is: on SQLite and on a real PostgreSQL."""

import pytest

from service.errors import IdempotencyConflict, NotFound, StateConflict
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.deletion import delete_job
from service.jobs.retry import retry
from service.store.epochs import branches_of, epochs_of
from service.store.trials import list_trials
from tests.builders import train
from tests.integration.jobs_in_sql import (
    FAILURE,
    SUCCESS,
    S,
    as_event,
    at_once,
    begin,
    bring,
    events_of,
    everything,
    job_of,
    lose,
    refuses,
    start,
    state_of,
    submit,
)
from tests.unit.service.reports import checkpoint, epoch, layers, scheduled_epoch

pytest_plugins = ["tests.databases"]


def failed(store, *records, **changes) -> str:
    job_id, token = start(store, **changes)
    for record in records:
        reports.record_epoch(store, job_id, token, record)
    reports.finish(store, job_id, token, FAILURE)
    return job_id


@pytest.mark.parametrize("state", S)
def test_a_retry_in_every_state(store, state):
    job_id = bring(store, state)
    if state not in (S.FAILED, S.CANCELLED):
        detail = refuses(StateConflict, store, retry, job_id)
        assert detail == f"job {job_id} is {state}; only a job that failed or was cancelled can be retried"
        return
    before = job_of(store, job_id)
    again = retry(store, job_id)
    assert job_of(store, job_id) == before
    job = job_of(store, again)
    assert (job.state, job.attempt, job.retry_of, job.spec) == (S.QUEUED, 0, job_id, before.spec)
    token = begin(store, again)
    reports.record_epoch(store, again, token, epoch(1))
    reports.finish(store, again, token, SUCCESS)


def test_a_job_that_does_not_exist(store):
    with pytest.raises(NotFound):
        retry(store, "job-0")


def test_a_retry_goes_on_from_the_newest_trajectory(store):
    first = [epoch(number, checkpoint=checkpoint(number), layers=layers()) for number in (1, 2, 3)]
    job_id, token = start(store, epochs=4)
    for record in first:
        reports.record_epoch(store, job_id, token, record)
    lose(store, job_id)
    second = epoch(2, train_loss=0.5, checkpoint=checkpoint(12))  # it went back, and 3 lies on another trajectory now
    reports.record_epoch(store, job_id, begin(store, job_id), second)
    lose(store, job_id)
    begin(store, job_id)
    lose(store, job_id, max_attempts=2)
    begin(store, job_id) if state_of(store, job_id) is S.RECOVERING else None
    lose(store, job_id, max_attempts=1)
    assert state_of(store, job_id) is S.FAILED
    again = retry(store, job_id)
    with store.read() as session:
        old, new = epochs_of(session, job_id), epochs_of(session, again)
        assert [(e.epoch, e.attempt, e.train_loss) for e in new] == [(1, 0, first[0].train_loss), (2, 0, 0.5)]
        assert [e.fingerprint for e in new] == [e.fingerprint for e in old[:2]]
        branches = [(b.epoch, b.number, b.learning_rate) for b in branches_of(session, again)]
        assert branches == [(b.epoch, b.number, b.learning_rate) for b in branches_of(session, job_id) if b.epoch < 3]
        [trial] = list_trials(session, again)
        assert trial.state == "running"
    assert [data for _, kind, data in events_of(store, again) if kind == "epoch"] == [
        as_event(first[0], 0),
        as_event(second, 0),
    ]
    assert [number for number, _, _ in events_of(store, again)] == [1, 2, 3]
    claimed = jobs.claim_next(store)
    assignment = reports.exchange_ticket(store, again, claimed.ticket)
    assert assignment.retry_of == job_id
    assert [(p.epoch, p.checkpoint.name) for p in assignment.resume] == [(2, "epoch-12-a1"), (1, "epoch-1-a1")]
    lose(store, again, max_attempts=2)  # its losses count from zero
    assert state_of(store, again) is S.RECOVERING
    token = begin(store, again)
    for number in (2, 3, 4):
        reports.record_epoch(store, again, token, epoch(number))
    reports.finish(store, again, token, SUCCESS)


def test_trials_that_ended_have_ended(store):
    methods = ["reference", {"name": "sweep", "learning_rates": [0.2, 0.1, 0.05]}]
    records = [
        scheduled_epoch(1, label="reference"),
        scheduled_epoch(1, label="sweep", trial=1),
        scheduled_epoch(2, label="sweep", trial=1),
        scheduled_epoch(1, label="sweep", trial=2),
    ]
    job_id, _ = train(store, records, epochs=2, methods=methods)
    jobs.cancel(store, job_id)
    jobs.confirm_cancelled(store, job_id)
    again = retry(store, job_id)
    with store.read() as session:
        assert [(t.label, t.number, t.state) for t in list_trials(session, again)] == [
            ("reference", 1, "running"),
            ("sweep", 1, "completed"),
            ("sweep", 2, "running"),
            ("sweep", 3, "pending"),
        ]
    assert job_of(store, again).trials == 4


def test_a_key_gives_one_retry(store):
    job_id, other = failed(store, epoch(1)), failed(store)
    answers = at_once(*[lambda: retry(store, job_id, "key-1")] * 8)
    assert answers == [answers[0]] * 8
    rows = everything(store)
    with pytest.raises(IdempotencyConflict, match="use a new key"):
        retry(store, other, "key-1")
    with pytest.raises(IdempotencyConflict):
        submit(store, "key-1", epochs=7)
    assert everything(store) == rows
    assert retry(store, job_id) != retry(store, job_id)  # without a key, each is a new one


def test_a_job_that_a_retry_goes_on_from_stays(store, tmp_path):
    job_id = failed(store, epoch(1))
    again = retry(store, job_id)
    jobs.keep_log(store, f"{job_id}-a1", "")
    detail = refuses(StateConflict, store, delete_job, job_id, tmp_path)
    assert detail == f"job {again} goes on from job {job_id}; delete it when that one has ended"
    jobs.cancel(store, again)
    delete_job(store, job_id, tmp_path)
    delete_job(store, again, tmp_path)
