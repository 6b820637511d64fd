"""The use cases from a submission to its report token: one suite, on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import IdempotencyConflict, StaleAttempt
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.lifecycle import Claim
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.store.epochs import epochs_of
from service.store.tables import Event, IdempotencyKey, Job, Run
from tests.integration.jobs_in_sql import (
    S,
    at_once,
    bring,
    claim,
    count,
    events_of,
    everything,
    job_of,
    lose,
    refuses,
    spec,
    start,
    state_of,
    submit,
)
from tests.unit.service.reports import epoch, warmup_epoch

pytest_plugins = ["tests.databases"]

TOKEN = "drawn by the worker" + "x" * 24


# --- submit --------------------------------------------------------------------------------------------


def test_submit_writes_the_job_its_event_and_its_key(store):
    before = datetime.now(UTC)
    wanted = spec(name="first", workers=2, global_batch_size=128, seed=2**63 - 1)
    job_id, new = submit_job(store, wanted, "key-1")
    assert new
    job = job_of(store, job_id)
    assert (job.id, job.name, job.model, job.dataset, job.workers) == (job_id, "first", "lenet5", "digits", 2)
    assert (job.state, job.attempt, job.attempts, job.last_event) == ("queued", 0, (), 1)
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
    def power_cut(*args: Any, **more: Any) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("service.jobs.submit.insert_idempotency_key", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        submit(store, "key-1")
    monkeypatch.undo()
    assert set(map(len, everything(store).values())) == {0}
    assert submit_job(store, spec(), "key-1")[1]


def test_any_text_that_a_spec_allows_can_be_stored(store):
    name = "Übung 🚂 \u202e \x01 'quoted' \"%s\" \ufffd"
    assert job_of(store, submit(store, name=name)).name == name
    assert job_of(store, submit(store, name="ä" * 200)).name == "ä" * 200


@pytest.mark.parametrize("value", [1e-300, 5e-324, 1e6, 0.1, 1 / 3])
def test_numbers_come_back_as_they_were(store, value):
    job_id, token = start(store, epochs=1, initial_learning_rate=value)
    reports.record_epoch(store, job_id, token, warmup_epoch(1, learning_rate=value, val_loss=value))
    assert job_of(store, job_id).spec["initial_learning_rate"] == value
    with store.read() as session:
        [row] = epochs_of(session, job_id)
        assert (row.learning_rate, row.val_loss) == (value, value)


# --- idempotency -----------------------------------------------------------------------------------------


def test_the_same_key_and_spec_give_the_same_job(store):
    first = submit_job(store, spec(), "key-1")
    rows = everything(store)
    assert submit_job(store, spec(), "key-1") == (first[0], False)
    # the same spec, its defaults written out, its keys in another order
    written_out = JobSpec.model_validate(dict(reversed(spec().model_dump().items())))
    assert submit_job(store, written_out, "key-1") == (first[0], False)
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
    assert submit_job(store, spec(), "key-1") == (job_id, False)


def test_eight_requests_with_one_key_at_once_are_one_job(store):
    answers = at_once(*[lambda: submit_job(store, spec(), "key-1")] * 8)
    assert len({job_id for job_id, _ in answers}) == 1
    assert sorted(new for _, new in answers) == [False] * 7 + [True]
    assert (count(store, Job), count(store, Event), count(store, IdempotencyKey)) == (1, 1, 1)


def test_eight_specs_with_one_key_at_once_are_one_job_and_seven_conflicts(store):
    answers = at_once(*[lambda seed=seed: submit_job(store, spec(seed=seed), "key-1") for seed in range(8)])
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
        assert reports.exchange_ticket(store, c.job_id, c.ticket).attempt == 1


# --- ticket and token ------------------------------------------------------------------------------------


def test_a_ticket_buys_the_spec_and_a_token(store):
    wanted = spec(name="x")
    job_id = submit_job(store, wanted)[0]
    claimed = claim(store)
    before = datetime.now(UTC)
    assignment = reports.exchange_ticket(store, job_id, claimed.ticket)
    assert (assignment.job_id, assignment.attempt) == (job_id, 1)
    assert JobSpec.model_validate_json(assignment.spec) == wanted
    job = job_of(store, job_id)
    assert job.state is S.RUNNING
    assert before <= job.started_at <= datetime.now(UTC)
    assert events_of(store, job_id)[2:] == [(3, "state", {"state": "running", "attempt": 1})]
    for secret in (claimed.ticket, assignment.report_token):
        assert secret not in str(everything(store))
    assert assignment.report_token != claimed.ticket


def test_a_ticket_is_good_once(store):
    job_id = submit(store)
    ticket = claim(store).ticket
    reports.exchange_ticket(store, job_id, ticket)
    detail = refuses(StaleAttempt, store, reports.exchange_ticket, job_id, ticket)
    assert detail == f"this ticket is not for the live attempt of job {job_id}, or was used already"


def test_who_holds_the_token_of_a_ticket_may_ask_again(store):
    """The answer was lost: the service died between its commit and that."""
    job_id = submit(store)
    ticket = claim(store).ticket
    first = reports.exchange_ticket(store, job_id, ticket, TOKEN)
    rows = everything(store)
    assert reports.exchange_ticket(store, job_id, ticket, TOKEN) == first
    assert everything(store) == rows
    assert first.report_token == TOKEN
    refuses(StaleAttempt, store, reports.exchange_ticket, job_id, ticket, "another token")
    reports.record_epoch(store, job_id, TOKEN, epoch(1))
    lose(store, job_id)
    refuses(StaleAttempt, store, reports.exchange_ticket, job_id, ticket, TOKEN)


def test_of_eight_who_bring_the_same_ticket_one_gets_the_token(store):
    job_id = submit(store)
    ticket = claim(store).ticket
    answers = at_once(*[lambda: reports.exchange_ticket(store, job_id, ticket)] * 8)
    assert sum(isinstance(answer, StaleAttempt) for answer in answers) == 7
    [assignment] = [answer for answer in answers if not isinstance(answer, StaleAttempt)]
    reports.record_epoch(store, job_id, assignment.report_token, epoch(1))


def test_a_ticket_is_good_for_its_own_job_and_attempt_alone(store):
    first, second = submit(store), submit(store)
    tickets = [claim(store).ticket for _ in range(2)]
    refuses(StaleAttempt, store, reports.exchange_ticket, first, tickets[1])
    refuses(StaleAttempt, store, reports.exchange_ticket, second, tickets[0])
    refuses(StaleAttempt, store, reports.exchange_ticket, first, "")
    lose(store, first)
    refuses(StaleAttempt, store, reports.exchange_ticket, first, tickets[0])  # recovering
    again = claim(store)
    refuses(StaleAttempt, store, reports.exchange_ticket, first, tickets[0])  # attempt 2
    assert reports.exchange_ticket(store, first, again.ticket).attempt == 2


@pytest.mark.parametrize("state", S)
def test_no_ticket_is_good_for_a_job_in_another_state(store, state):
    refuses(StaleAttempt, store, reports.exchange_ticket, bring(store, state), "guess")


def test_a_ticket_of_a_cancelled_job_is_worthless(store):
    job_id = submit(store)
    ticket = claim(store).ticket
    jobs.cancel(store, job_id)
    refuses(StaleAttempt, store, reports.exchange_ticket, job_id, ticket)


def test_reissue_makes_a_new_ticket_and_the_old_one_worthless(store):
    job_id = submit(store)
    old = claim(store)
    events = events_of(store, job_id)
    new = jobs.reissue_ticket(store, job_id, 1)
    assert (new.job_id, new.attempt, new.submission_id) == (old.job_id, old.attempt, old.submission_id)
    assert events_of(store, job_id) == events
    refuses(StaleAttempt, store, reports.exchange_ticket, job_id, old.ticket)
    assert reports.exchange_ticket(store, job_id, new.ticket).attempt == 1


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
    assert reports.exchange_ticket(store, job_id, ticket).attempt == 2
