"""The use cases of a worker: epochs, checkpoints and the outcome: one suite, on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from service.errors import RecordConflict, StaleAttempt
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.store import epochs as stored_epochs
from service.store.engine import Store
from service.store.tables import Branch, Epoch, Layer
from service.wire.states import TERMINAL
from service.wire.worker import Outcome, Receipt
from tests.integration.jobs_in_sql import (
    FAILURE,
    SUCCESS,
    S,
    as_event,
    at_once,
    begin,
    claim,
    count,
    epochs_of,
    events_of,
    everything,
    job_of,
    lose,
    refuses,
    start,
    state_of,
    submit,
)
from tests.unit.service.reports import branch, checkpoint, epoch, layers

pytest_plugins = ["tests.databases"]


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
    reports.record_epoch(store, job_id, token, record)
    with store.read() as session:
        [row] = stored_epochs.epochs_with_branches(session, job_id)
        values = record.model_dump(exclude={"label", "trial", "branches", "layers"})
        assert {name: getattr(row, name) for name in values} == values
        assert (row.attempt, row.fingerprint) == (1, record.fingerprint())
        assert (row.trial, row.method) == (1, "stpt")
        assert before <= row.recorded_at <= datetime.now(UTC)
        stored = [{name: getattr(b, name) for name in type(record.branches[0]).model_fields} for b in row.branches]
        assert stored == [b.model_dump() for b in record.branches]
    assert events_of(store, job_id)[3:] == [(4, "epoch", as_event(record, 1))]


def layers_in(store):
    """The columns of every stored layer, by (epoch, layer)."""
    with store.read() as session:
        columns = ("number", "first_step", "every", "lwn", "lgn", "trust_ratio")
        return {
            (row.epoch_row.epoch, row.name): tuple(getattr(row, name) for name in columns)
            for row in session.scalars(select(Layer))
        }


def test_layers_are_written_with_the_epoch_and_stay_out_of_the_events(store):
    job_id, token = start(store)
    record = epoch(1, layers=layers())
    for _ in range(2):  # a repeat changes nothing
        reports.record_epoch(store, job_id, token, record)
        assert layers_in(store) == {
            (1, "0.weight"): (1, 20, 10, [1.5, 1.25, 1.0], [0.5, 0.25, 0.0], [0.003, 0.005, 1.0]),
            (1, "3.weight"): (2, 20, 10, [3.0, 2.0, 1.0], [2.0, 4.0, None], [0.0015, 0.0005, None]),
        }
    assert events_of(store, job_id)[3:] == [(4, "epoch", as_event(record, 1))]
    assert "layers" not in events_of(store, job_id)[-1][2]
    other = epoch(1, layers=layers(every=11))
    detail = refuses(RecordConflict, store, reports.record_epoch, job_id, token, other)
    assert detail == f"epoch 1 of job {job_id} is recorded already, with other values"


def test_a_later_attempt_replaces_layers(store):
    job_id, first = start(store)
    for number in (1, 2):
        reports.record_epoch(store, job_id, first, epoch(number, layers=layers(first_step=number)))
    lose(store, job_id)
    names, one = ["conv.weight"], [[1.0, 2.0]]
    replacement = layers(names=names, lwn=one, lgn=one, trust_ratio=None, every=5)
    reports.record_epoch(store, job_id, begin(store, job_id), epoch(2, layers=replacement))
    assert {key: values[1:3] for key, values in layers_in(store).items()} == {
        (1, "0.weight"): (1, 10),
        (1, "3.weight"): (1, 10),
        (2, "conv.weight"): (20, 5),
    }
    assert layers_in(store)[2, "conv.weight"][-1] is None


def test_a_repeated_record_is_accepted_and_changes_nothing(store):
    job_id, token = start(store)
    for number in (1, 2):
        reports.record_epoch(store, job_id, token, epoch(number))
    rows = everything(store)
    for number in (1, 2, 1):
        reports.record_epoch(store, job_id, token, epoch(number))
    assert everything(store) == rows


def test_a_different_record_of_the_same_attempt_is_a_conflict(store):
    job_id, token = start(store)
    reports.record_epoch(store, job_id, token, epoch(1))
    detail = refuses(RecordConflict, store, reports.record_epoch, job_id, token, epoch(1, seconds=3.75))
    assert detail == f"epoch 1 of job {job_id} is recorded already, with other values"


def test_no_epoch_is_left_out(store):
    job_id, token = start(store, epochs=5)
    detail = refuses(RecordConflict, store, reports.record_epoch, job_id, token, epoch(2))
    assert detail == f"epoch 2 of job {job_id} comes before the epochs left out"
    reports.record_epoch(store, job_id, token, epoch(1))
    refuses(RecordConflict, store, reports.record_epoch, job_id, token, epoch(3))
    reports.record_epoch(store, job_id, token, epoch(2))


@pytest.mark.parametrize("number", [4, 2**31 - 1])
def test_no_epoch_beyond_the_last_is_recorded(store, number):
    job_id, token = start(store, epochs=3)
    for n in (1, 2, 3):
        reports.record_epoch(store, job_id, token, epoch(n))
    detail = refuses(RecordConflict, store, reports.record_epoch, job_id, token, epoch(number))
    assert detail == f"job {job_id} has 3 epochs; {number} is not one of them"
    reports.finish(store, job_id, token, SUCCESS)


@pytest.mark.parametrize(
    ("changes", "trial"),
    [
        ({"trial": 2}, "trial 2 of stpt"),
        ({"trial": 2**31 - 1}, "trial 2147483647 of stpt"),
        ({"label": "sweep"}, "trial 1 of sweep"),
    ],
)
def test_a_trial_that_the_job_does_not_have(store, changes, trial):
    job_id, token = start(store)
    detail = refuses(RecordConflict, store, reports.record_epoch, job_id, token, epoch(1, **changes))
    assert detail == f"job {job_id} has no {trial}"


def test_a_later_attempt_replaces_epochs_and_goes_on(store):
    job_id, first = start(store, epochs=4)
    for number in (1, 2, 3):
        reports.record_epoch(store, job_id, first, epoch(number, train_loss=1.0))
    lose(store, job_id)
    second = begin(store, job_id)
    # it resumes from the checkpoint after epoch 1
    replacement = epoch(2, train_loss=2.0, branches=[branch(1, learning_rate=0.05, state="chosen")])
    reports.record_epoch(store, job_id, second, replacement)
    assert epochs_of(store, job_id) == [(1, 1, 1.0), (2, 2, 2.0), (3, 1, 1.0)]
    with store.read() as session:
        assert [len(row.branches) for row in stored_epochs.epochs_with_branches(session, job_id)] == [2, 1, 2]
    assert count(store, Branch) == 5
    assert [(kind, data.get("epoch"), data["attempt"]) for _, kind, data in events_of(store, job_id)[-1:]] == [
        ("epoch", 2, 2)
    ]
    reports.record_epoch(store, job_id, second, replacement)  # its repeat is one, too
    refuses(
        RecordConflict, store, reports.record_epoch, job_id, second, epoch(2, train_loss=1.0)
    )  # attempt 1's is gone
    for number in (3, 4):
        reports.record_epoch(store, job_id, second, epoch(number, train_loss=2.0))
    assert epochs_of(store, job_id) == [(1, 1, 1.0), (2, 2, 2.0), (3, 2, 2.0), (4, 2, 2.0)]
    reports.finish(store, job_id, second, SUCCESS)


def test_the_same_epoch_of_a_later_attempt_is_its_own(store):
    job_id, first = start(store)
    reports.record_epoch(store, job_id, first, epoch(1))
    lose(store, job_id)
    reports.record_epoch(store, job_id, begin(store, job_id), epoch(1))
    assert epochs_of(store, job_id) == [(1, 2, 1.25)]


@pytest.mark.parametrize("end", ["failed", "lost", "cancelled"])
def test_the_epochs_of_a_job_that_did_not_succeed_are_kept(store, end):
    job_id, token = start(store)
    for number in (1, 2):
        reports.record_epoch(store, job_id, token, epoch(number))
    if end == "failed":
        reports.finish(store, job_id, token, FAILURE)
    elif end == "lost":
        lose(store, job_id, max_attempts=1)  # with new epochs: it goes on
        begin(store, job_id)
        lose(store, job_id, max_attempts=1)
    else:
        jobs.cancel(store, job_id)
        jobs.confirm_cancelled(store, job_id)
    assert job_of(store, job_id).state in TERMINAL
    assert epochs_of(store, job_id) == [(1, 1, 1.25), (2, 1, 1.25)]
    assert count(store, Branch) == 4


@pytest.mark.parametrize("call", [reports.record_epoch, reports.finish])
def test_reports_are_fenced_by_the_token(store, call):
    report = epoch(1) if call is reports.record_epoch else FAILURE
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
    second = reports.exchange_ticket(store, job_id, claimed.ticket).report_token
    refuses(StaleAttempt, store, call, job_id, first, report)  # attempt 2 runs
    refuses(StaleAttempt, store, call, job_id, claimed.ticket, report)
    call(store, job_id, second, report)


@pytest.mark.parametrize("end", [S.SUCCEEDED, S.FAILED, S.CANCELLING, S.CANCELLED, S.RECOVERING])
def test_no_epoch_is_recorded_once_the_attempt_is_over(store, end):
    job_id, token = start(store, epochs=1)
    reports.record_epoch(store, job_id, token, epoch(1))
    if end is S.RECOVERING:
        lose(store, job_id)
    elif end in (S.SUCCEEDED, S.FAILED):
        reports.finish(store, job_id, token, SUCCESS if end is S.SUCCEEDED else FAILURE)
    else:
        jobs.cancel(store, job_id)
        if end is S.CANCELLED:
            jobs.confirm_cancelled(store, job_id)
    assert state_of(store, job_id) is end
    refuses(StaleAttempt, store, reports.record_epoch, job_id, token, epoch(1))


def test_eight_reports_of_one_epoch_at_once_are_one_epoch(store):
    job_id, token = start(store)
    answers = at_once(*[lambda: reports.record_epoch(store, job_id, token, epoch(1))] * 8)
    assert answers == [Receipt()] * 8
    assert (count(store, Epoch), count(store, Branch)) == (1, 2)
    assert [kind for _, kind, _ in events_of(store, job_id)].count("epoch") == 1


# --- checkpoints -------------------------------------------------------------------------------------------


def run_and_lose(db: Store, job_id: str, epochs: dict[int, bool]) -> list[tuple[int, str]]:
    """Have one attempt record those epochs (True: with a checkpoint) and die; return the checkpoints that it could have
    gone on from."""
    claimed = claim(db)
    assignment = reports.exchange_ticket(db, job_id, claimed.ticket)
    for number, kept in epochs.items():
        reference = checkpoint(number, claimed.attempt) if kept else None
        reports.record_epoch(db, job_id, assignment.report_token, epoch(number, checkpoint=reference))
    jobs.attempt_lost(db, job_id, claimed.attempt, "node died", max_attempts=9)
    return [(point.epoch, point.checkpoint.name) for point in assignment.resume]


def test_an_attempt_goes_on_from_the_newest_checkpoint(store):
    job_id = submit(store, epochs=5)
    assert run_and_lose(store, job_id, {1: True, 2: False, 3: True, 4: False}) == []
    with store.read() as session:
        rows = stored_epochs.epochs_of(session, job_id)
    assert [row.checkpoint for row in rows] == [checkpoint(1).model_dump(), None, checkpoint(3).model_dump(), None]
    claimed = claim(store)
    resume = reports.exchange_ticket(store, job_id, claimed.ticket).resume
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
    # all are equally good, and of equals the first counts as the best
    assert [number for number, _ in run_and_lose(store, job_id, {})] == [*range(30, 10, -1), 1]


# --- finish ----------------------------------------------------------------------------------------------


def test_success_needs_every_epoch(store):
    job_id, token = start(store, epochs=2)
    detail = refuses(RecordConflict, store, reports.finish, job_id, token, SUCCESS)
    assert detail == f"job {job_id} has 0 of 2 epochs of stpt 1 recorded; report the others first"
    reports.record_epoch(store, job_id, token, epoch(1))
    refuses(RecordConflict, store, reports.finish, job_id, token, SUCCESS)
    reports.record_epoch(store, job_id, token, epoch(2))
    before = datetime.now(UTC)
    reports.finish(store, job_id, token, SUCCESS)
    job = job_of(store, job_id)
    assert (job.state, job.error_code, job.error_message) == ("succeeded", None, None)
    assert before <= job.finished_at == max(job.finished_at, job.started_at, job.created_at)
    assert job.attempts[0].ended_at is not None
    assert events_of(store, job_id)[-1] == (6, "state", {"state": "succeeded", "attempt": 1})


def test_a_failure_says_why(store):
    job_id, token = start(store)
    reports.finish(store, job_id, token, FAILURE)
    job = job_of(store, job_id)
    assert (job.state, job.error_code, job.error_message) == ("failed", "diverged", "every branch diverged")
    assert job.attempts[0].message == "every branch diverged"
    why = {"state": "failed", "attempt": 1, "code": "diverged", "message": "every branch diverged"}
    assert events_of(store, job_id)[-1] == (4, "state", why)


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE], ids=["succeeded", "failed"])
def test_the_same_outcome_again_is_accepted_and_changes_nothing(store, outcome):
    job_id, token = start(store, epochs=1)
    reports.record_epoch(store, job_id, token, epoch(1))
    reports.finish(store, job_id, token, outcome)
    rows = everything(store)
    reports.finish(store, job_id, token, outcome)
    assert everything(store) == rows
    refuses(StaleAttempt, store, reports.finish, job_id, token, FAILURE if outcome is SUCCESS else SUCCESS)
    refuses(StaleAttempt, store, reports.finish, job_id, "guess", outcome)


def test_a_new_attempt_may_finish_with_the_epochs_of_the_one_before(store):
    job_id, token = start(store, epochs=1)
    reports.record_epoch(store, job_id, token, epoch(1))
    lose(store, job_id)  # between its last epoch and its outcome
    reports.finish(store, job_id, begin(store, job_id), SUCCESS)
    assert state_of(store, job_id) is S.SUCCEEDED


def test_text_that_a_database_cannot_keep_is_made_harmless(store):
    """A Ray job's last words come with whatever it printed: the controller must be able to write them down."""
    job_id, token = start(store)
    jobs.attempt_lost(store, job_id, 1, "exit 1:\x00\udc80 é", max_attempts=2)
    job = job_of(store, job_id)
    assert job.attempts[0].message == "exit 1:\ufffd? é"
    token = begin(store, job_id)
    reports.finish(store, job_id, token, Outcome(state="failed", code="worker_failed", message="\x00bang"))
    assert job_of(store, job_id).error_message == "\ufffdbang"
    assert events_of(store, job_id)[-1][2]["message"] == "\ufffdbang"
