"""How writers exclude each other, and every query: one suite, on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from service.errors import InvalidInput, StateConflict
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.store.attempts import ended_submissions, insert_attempt
from service.store.engine import Session, Store
from service.store.epochs import branches_of, epochs_with_branches
from service.store.jobs import get_job, jobs_in, set_job_state
from service.store.keys import KeyTaken, insert_idempotency_key
from service.store.layers import layers_of, layers_of_training
from service.store.records import FirstTraining, JobWithAttempts
from service.store.shown import list_jobs, shown_job
from service.store.tables import Job
from service.wire.states import TERMINAL
from tests.integration.jobs_in_sql import (
    FAILURE,
    S,
    begin,
    bring,
    everything,
    job_of,
    lose,
    start,
    submit,
    until_somebody_waits_for_a_lock,
)
from tests.unit.service.reports import epoch, layers, scheduled_epoch, warmup_epoch

pytest_plugins = ["tests.databases"]


def change(session: Session, job_id: str, **values: Any) -> None:
    """Change a job's row as no use case does it."""
    session.execute(sa.update(Job).where(Job.id == job_id).values(values))


# --- how writers exclude each other (SQLite's side: tests/unit/service/test_store.py) ------------------------


def test_postgresql_a_second_writer_of_a_job_waits_for_the_first(postgres_store):
    db = postgres_store
    job_id = submit(db)
    with ThreadPoolExecutor(1) as pool:
        with db.write() as session:
            get_job(session, job_id, lock=True)
            with pytest.raises(OperationalError, match="could not obtain lock"), db.write() as other:
                other.execute(sa.select(Job).where(Job.id == job_id).with_for_update(nowait=True))
            second = pool.submit(jobs.cancel, db, job_id)
            until_somebody_waits_for_a_lock(db)
            change(session, job_id, state=S.FAILED)  # what the second must see
        with pytest.raises(StateConflict, match="has failed already"):
            second.result(30)


def test_postgresql_readers_do_not_wait(postgres_store):
    job_id = submit(postgres_store)
    with postgres_store.write() as session:
        get_job(session, job_id, lock=True)
        change(session, job_id, name="changed")
        assert job_of(postgres_store, job_id).name == ""


def test_postgresql_a_job_in_other_hands_is_passed_over(postgres_store):
    first, second = submit(postgres_store), submit(postgres_store)
    with postgres_store.write() as session:
        get_job(session, first, lock=True)
        assert jobs.claim_next(postgres_store).job_id == second
        assert jobs.claim_next(postgres_store) is None
    assert jobs.claim_next(postgres_store).job_id == first


# --- queries ---------------------------------------------------------------------------------------------


def page(db: Store, **filters: Any) -> tuple[list[str], str | None]:
    with db.read() as session:
        found = list_jobs(session, **{"limit": 10, **filters})
    return [job.id for job in found.items], found.next_cursor


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
        live = jobs_in(session, [state for state in S if state not in TERMINAL])
    assert [job.id for job in live] == [ids[S.RUNNING], ids[S.CANCELLING], ids[S.RECOVERING]]  # oldest first
    assert [len(job.attempts) for job in live] == [1, 1, 1]  # readable after the session


def test_epochs_and_branches_of_a_job(store):
    job_id, token = start(store)
    start(store)
    for record in (warmup_epoch(1), epoch(2), epoch(3)):
        reports.record_epoch(store, job_id, token, record)
    with store.read() as session:
        epochs = epochs_with_branches(session, job_id)
        branches = branches_of(session, job_id)
        assert branches_of(session, job_id, epoch=1) == []
        assert [b.number for b in branches_of(session, job_id, epoch=3)] == [1, 2]
        assert [e.epoch for e in epochs_with_branches(session, job_id, label="stpt", trial=1)] == [1, 2, 3]
        assert epochs_with_branches(session, job_id, label="sweep") == []
        assert epochs_with_branches(session, job_id, trial=2) == []
    # readable after the session
    assert [(e.epoch, len(e.branches), e.method) for e in epochs] == [
        (1, 0, "stpt"),
        (2, 2, "stpt"),
        (3, 2, "stpt"),
    ]
    assert [(b.epoch, b.number, b.trial) for b in branches] == [
        (2, 1, 1),
        (2, 2, 1),
        (3, 1, 1),
        (3, 2, 1),
    ]


def test_the_latest_epoch_of_each_job(store):
    one, none, three = start(store), start(store), start(store)
    reports.record_epoch(store, *one, epoch(1, val_accuracy=0.1))
    for number in (1, 2, 3):
        reports.record_epoch(store, *three, epoch(number, val_accuracy=number / 10))
    with store.read() as session:
        latest = [shown_job(session, job_id).first_training for job_id, _ in (one, none, three)]
    assert [row.epochs_done for row in latest] == [1, 0, 3]
    assert [row.val_accuracy for row in latest] == [0.1, None, 0.3]


def test_the_first_training_of_each_job(store):
    methods = ["sweep", "stpt"]  # the sweep has a training for each candidate
    several, token = start(store, methods=methods)
    of_a_search = submit(store, methods=["asha"], budget={"epochs": 4})

    def first_of(job_id: str) -> FirstTraining | None:
        with store.read() as session:
            return shown_job(session, job_id).first_training

    assert first_of(of_a_search) is None
    reports.record_epoch(store, several, token, epoch(1))
    reports.record_epoch(store, several, token, scheduled_epoch(1, label="sweep", trial=2))
    assert first_of(several) == FirstTraining(3, 0, None, None, None)
    reports.record_epoch(store, several, token, scheduled_epoch(1, label="sweep", trial=1))
    first = first_of(several)
    assert (first.length, first.epochs_done, first.val_accuracy) == (3, 1, 0.5)


def test_submissions_whose_attempt_has_ended(store):
    lost, _ = start(store)
    lose(store, lost)
    begin(store, lost)
    reported, token = start(store)
    reports.finish(store, reported, token, FAILURE)
    cancelled, _ = start(store)
    jobs.cancel(store, cancelled)
    jobs.confirm_cancelled(store, cancelled)
    ids = [f"{lost}-a1", f"{lost}-a2", "somebody-elses", f"{reported}-a1", f"{cancelled}-a1"]
    with store.read() as session:
        assert ended_submissions(session, ids) == {
            f"{lost}-a1": False,
            f"{reported}-a1": True,
            f"{cancelled}-a1": False,
        }
        assert ended_submissions(session, ids[1:3]) == {}


def test_times_come_back_in_utc(store):
    job_id = submit(store)
    noon = datetime(2026, 7, 1, 12, 0, 0, 123456, timezone(timedelta(hours=5, minutes=30)))
    with store.write() as session:
        change(session, job_id, created_at=noon)
    found = job_of(store, job_id).created_at
    assert found == noon
    assert found.isoformat() == "2026-07-01T06:30:00.123456+00:00"


def test_a_write_that_raises_leaves_nothing(store):
    job_id = submit(store)
    rows = everything(store)

    def write_half() -> None:
        with store.write() as session:
            change(session, job_id, name="half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert everything(store) == rows


# --- telemetry of layers ---------------------------------------------------------------------------------


@pytest.fixture
def job_with_layers(store):
    """The id of a job of stpt and a sweep of two, four epochs of each, made after a job whose layers must not be
    seen."""
    for methods in (["stpt"], ["stpt", {"name": "sweep", "learning_rates": [0.1, 0.2]}]):
        job_id, token = start(store, epochs=4, methods=methods)
        for method, trial in (("stpt", 1), ("sweep", 1), ("sweep", 2))[: 2 * len(methods) - 1]:
            for number in range(1, 5):
                more = {} if method == "stpt" else {"phase": "scheduled", "branches": []}
                record = epoch(number, label=method, trial=trial, layers=layers(first_step=100 * number), **more)
                reports.record_epoch(store, job_id, token, record)
    return job_id


@pytest.mark.parametrize("limit", [1, 5, 24])
def test_pages_of_layers(store, job_with_layers, limit):
    found, cursor = [], None
    while True:
        with store.read() as session:
            page = layers_of(session, job_with_layers, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        found += page.items
        if (cursor := page.next_cursor) is None:
            break
    trainings = [("stpt", 1), ("sweep", 1), ("sweep", 2)]
    names = ["0.weight", "3.weight"]
    expected = [(*training, number, name) for training in trainings for number in range(1, 5) for name in names]
    assert [(one.label, one.trial, one.epoch, one.layer) for one in found] == expected
    last = found[-1]
    assert (list(last.steps), last.lwn, last.lgn) == ([400, 410, 420], [3.0, 2.0, 1.0], [2.0, 4.0, None])
    assert (last.attempt, last.trust_ratio) == (1, [0.0015, 0.0005, None])


@pytest.mark.parametrize(
    ("filters", "most_epochs", "expected"),
    [
        ({}, 4, [("stpt", 1, number) for number in (1, 2, 3, 4)]),
        ({}, 3, [("stpt", 1, 1), ("stpt", 1, 3)]),
        ({"first_epoch": 2}, 2, [("stpt", 1, 2), ("stpt", 1, 4)]),
        ({"label": "sweep", "trial": 2, "last_epoch": 2}, 4, [("sweep", 2, 1), ("sweep", 2, 2)]),
        ({"trial": 2}, 4, []),
        ({"label": "tpe"}, 4, []),
    ],
)
def test_layers_of_one_training(store, job_with_layers, filters, most_epochs, expected):
    everything = {"label": None, "trial": 1, "layer": "3.weight", "first_epoch": None, "last_epoch": None}
    with store.read() as session:
        rows = layers_of_training(session, job_with_layers, **everything | filters, most_epochs=most_epochs)
    assert [(row.label, row.trial, row.epoch) for row in rows] == expected
    assert {row.layer for row in rows} <= {"3.weight"}


# --- changes -----------------------------------------------------------------------------------------------


def test_a_state_is_set_from_the_state_before_alone(store):
    job_id = submit(store)
    jobs.cancel(store, job_id)
    rows = everything(store)
    claimed, now = replace(job_of(store, job_id), state=S.SUBMITTING, attempt=1), datetime.now(UTC)
    with pytest.raises(AssertionError, match=f"{job_id} is not queued any more"), store.write() as session:
        set_job_state(session, claimed, before=S.QUEUED, event={"state": "submitting"}, created_at=now)
    assert everything(store) == rows


def test_a_key_is_stored_once(store):
    job_id = submit(store, "key-1")
    rows = everything(store)
    with pytest.raises(KeyTaken) as caught, store.write() as session:
        insert_idempotency_key(session, "key-1", fingerprint="f", job_id=job_id, created_at=datetime.now(UTC))
    assert caught.value.key == "key-1"
    assert everything(store) == rows


def test_postgresql_who_waited_for_a_job_sees_the_attempt_that_was_made_meanwhile(postgres_store):
    db = postgres_store
    job_id = submit(db)
    with ThreadPoolExecutor(1) as pool:
        with db.write() as session:
            job = get_job(session, job_id, lock=True)
            second = pool.submit(locked, db, job_id)
            until_somebody_waits_for_a_lock(db)
            now = datetime.now(UTC)
            insert_attempt(
                session, job_id, 1, submission_id=f"{job_id}-a1", ticket_hash="h", cluster=None, created_at=now
            )
            claimed = replace(job, state=S.SUBMITTING, attempt=1)
            set_job_state(session, claimed, before=S.QUEUED, event={"state": "submitting"}, created_at=now)
        found = second.result(30)
    assert (found.state, found.attempt, found.last_attempt.submission_id) == (S.SUBMITTING, 1, f"{job_id}-a1")


def locked(db: Store, job_id: str) -> JobWithAttempts:
    with db.write() as session:
        return get_job(session, job_id, lock=True)
