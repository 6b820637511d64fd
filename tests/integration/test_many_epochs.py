"""Queries over many epochs, on SQLite and on a real PostgreSQL."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select

from service.errors import InvalidInput
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.results import of_jobs
from service.store.engine import Store
from service.store.epochs import costs_of, epochs_of_all_jobs
from service.store.tables import Job
from service.store.trials import succeeded_stpt_trainings, trials_with_results
from service.wire.states import JobState
from service.wire.worker import TrialRecord
from tests.integration.jobs_in_sql import SUCCESS, begin, lose, start, submit
from tests.unit.service.reports import epoch, scheduled_epoch

pytest_plugins = ["tests.databases"]


@pytest.fixture(params=["sqlite_store", "postgres_store"])
def store(request: pytest.FixtureRequest) -> Store:
    """A store like that of tests.databases, without the check of invariants, which know no seeds and no searches."""
    store: Store = request.getfixturevalue(request.param)
    return store


def tpe_trial(store: Store, job_id: str, token: str, number: int, **changes: Any) -> None:
    values = {"label": "tpe", "trial": number, "seed": 0, "epochs": 3, "state": "running"} | changes
    reports.record_trial(store, job_id, token, TrialRecord.model_validate(values))


def record(store: Store, job_id: str, token: str, *records: Any) -> None:
    for one in records:
        reports.record_epoch(store, job_id, token, one)


def a_search(store: Store) -> tuple[str, str]:
    """Make a running job of stpt and tpe with two seeds, in which tpe's second trial has an optimizer and a batch of
    its own; return its id and report token."""
    job_id, token = start(store, methods=["stpt", {"name": "tpe"}], seeds=2, seed=5)
    stpt = [
        epoch(1, val_accuracy=0.5, test_accuracy=0.9, samples=100),
        epoch(2, val_accuracy=0.75, test_accuracy=0.6, samples=100),
        epoch(3, val_accuracy=0.75, test_accuracy=0.7, samples=100, last_learning_rate=0.0),
    ]
    record(store, job_id, token, *stpt, epoch(1, trial=2, val_accuracy=0.25, test_accuracy=0.2, samples=100))
    tpe_trial(store, job_id, token, 1, seed=5, config={"learning_rate": 0.3})
    own = {"optimizer": {"name": "adam", "eps": 1e-6}, "global_batch_size": 32}
    tpe_trial(store, job_id, token, 2, seed=6, config=own)
    tpe_trial(store, job_id, token, 3, seed=6, config={"optimizer": "adamw"})
    for number in (2, 1, 3):
        record(store, job_id, token, scheduled_epoch(1, label="tpe", trial=number, val_accuracy=0.8, samples=150))
    return job_id, token


def test_results_of_trials(store):
    job_id, _ = a_search(store)
    start(store)
    with store.read() as session:
        rows = trials_with_results(session, job_id)
        stopped = trials_with_results(session, job_id, state=["completed", "stopped"])
        tpe = trials_with_results(session, job_id, label="tpe")
    assert [(r.label, r.number, r.seed, r.epochs, r.samples) for r in rows] == [
        ("stpt", 1, 5, 3, 300),
        ("stpt", 2, 6, 1, 100),
        ("tpe", 1, 5, 1, 150),
        ("tpe", 2, 6, 1, 150),
        ("tpe", 3, 6, 1, 150),
    ]
    best, last = rows[0].best, rows[0].last
    assert (best.epoch, best.val_accuracy, best.test_accuracy) == (2, 0.75, 0.6)  # of equals the first
    assert (last.epoch, last.last_learning_rate) == (3, 0.0)
    assert [r.number for r in stopped] == [1]
    assert tpe == rows[2:]


def test_a_trial_without_an_epoch(store):
    job_id, _ = start(store)
    with store.read() as session:
        [row] = trials_with_results(session, job_id)
    assert (row.label, row.state) == ("stpt", "pending")
    assert (row.epochs, row.samples, row.best, row.last) == (0, 0, None, None)


def test_points_come_in_the_order_recorded(store):
    job_id, _ = a_search(store)
    with store.read() as session:
        points = costs_of(session, job_id)
    assert [(point.label, point.seed, point.samples) for point in points] == [
        *[("stpt", 5, 100)] * 3,
        ("stpt", 6, 100),
        ("tpe", 6, 150),
        ("tpe", 5, 150),
        ("tpe", 6, 150),
    ]
    assert all(before.recorded_at <= after.recorded_at for before, after in pairwise(points))


def test_a_comparison_over_seeds(store):
    job_id, _ = a_search(store)
    with store.read() as session:
        stpt, tpe = of_jobs.comparison(session, job_id)
    assert [(seed.seed, seed.trials, seed.val_accuracy, seed.test_accuracy) for seed in stpt.by_seed] == [
        (5, 1, 0.75, 0.6),
        (6, 1, 0.25, 0.2),
    ]
    assert (stpt.val_accuracy.mean, stpt.val_accuracy.spread) == (0.5, pytest.approx(0.3535534))  # 0.5 / sqrt(2)
    assert [(seed.seed, seed.trials, seed.samples, seed.samples_to_stpt) for seed in tpe.by_seed] == [
        (5, 1, 150, 150),
        (6, 2, 300, 150),
    ]
    # 150 where stpt took 200, 150 where it took 100
    assert (tpe.samples_to_stpt.mean, tpe.relative_to_stpt.mean) == (150, pytest.approx(1.125))
    assert tpe.trials == 3


def test_samples_that_a_lost_attempt_took_stand_apart(store):
    job_id, token = start(store)
    record(store, job_id, token, epoch(1, samples=100), epoch(2, samples=100))
    lose(store, job_id)
    token = begin(store, job_id)
    record(store, job_id, token, epoch(1, samples=90))
    with store.read() as session:
        [run] = of_jobs.comparison(session, job_id)
        [row] = trials_with_results(session, job_id)
    assert (run.samples.mean, run.lost_samples.mean) == (190, 100)
    assert (row.lost_samples, row.epochs, row.samples) == (100, 2, 190)


# --- the history of all jobs -------------------------------------------------------------------------


def page(store: Store, **filters: Any) -> tuple[list[tuple[Any, ...]], str | None]:
    with store.read() as session:
        found = epochs_of_all_jobs(session, **{"limit": 100, **filters})
    return places(found.items), found.next_cursor


def places(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [(row.job_id, row.method, row.trial, row.epoch) for row in rows]


def test_pages_of_all_epochs(store):
    first, token = start(store)
    record(store, first, token, epoch(1), epoch(2), epoch(3))
    second, _ = a_search(store)
    expected = [
        *[(second, "stpt", 1, number) for number in (1, 2, 3)],
        (second, "stpt", 2, 1),
        *[(second, "tpe", number, 1) for number in (1, 2, 3)],
        *[(first, "stpt", 1, number) for number in (1, 2, 3)],
    ]
    assert page(store) == (expected, None)
    assert page(store, limit=10) == (expected, None)
    for limit in (1, 2, 3, 7, 9):
        rows, cursor = page(store, limit=limit)
        while cursor is not None:
            more, cursor = page(store, limit=limit, cursor=cursor)
            rows += more
        assert rows == expected
    seen, cursor = page(store, limit=5)
    third, token = start(store)  # a job submitted meanwhile does not shift the pages
    record(store, third, token, epoch(1))
    assert seen + page(store, cursor=cursor)[0] == expected


def test_filters_of_all_epochs(store):
    job_id, _ = a_search(store)
    other, token = start(store, model="lenet5-bn", dataset="mnist", optimizer="adam", global_batch_size=128)
    record(store, other, token, epoch(1))
    tpe = [(job_id, "tpe", number, 1) for number in (1, 2, 3)]
    one = [(other, "stpt", 1, 1)]
    assert page(store, model="lenet5-bn") == page(store, dataset="mnist") == page(store, batch=128) == (one, None)
    # a trial's own optimizer and batch go before those of its job
    assert page(store, optimizer="adam") == (one + tpe[1:2], None)
    assert page(store, optimizer="adamw") == (tpe[2:], None)
    assert page(store, optimizer="sgd", label="tpe") == (tpe[:1], None)
    assert page(store, batch=32) == (tpe[1:2], None)
    assert page(store, state=[JobState.SUCCEEDED]) == ([], None)
    assert len(page(store, state=[JobState.RUNNING, JobState.FAILED])[0]) == 8
    rows, cursor = page(store, label="tpe", limit=2)
    assert rows + page(store, label="tpe", cursor=cursor)[0] == tpe


@pytest.mark.parametrize("cursor", ["", "MQ", "MS4x", "MS4xLjEuMA", "LTEuMS4xLjE", "🚂"])
def test_what_is_no_cursor_of_all_epochs(store, cursor):
    with pytest.raises(InvalidInput, match="not a cursor of this list"):
        page(store, cursor=cursor)


# --- evidence ----------------------------------------------------------------------------------------


def finished(store: Store, **changes: Any) -> str:
    job_id, token = start(store, epochs=1, **changes)
    method = changes.get("methods", ["stpt"])[0]
    record(store, job_id, token, epoch(1) if method == "stpt" else scheduled_epoch(1, label=method))
    reports.finish(store, job_id, token, SUCCESS)
    return job_id


def evidence(store: Store, **changes: Any) -> list[str]:
    wanted = {"model": "lenet5", "dataset": "digits", "path": None, "task": "classification", "optimizer": None}
    wanted |= {"limit": 100} | changes
    with store.read() as session:
        return [one.job_id for one in succeeded_stpt_trainings(session, **wanted) if one.settled_learning_rate == 0.05]


def test_evidence_is_what_succeeded(store):
    sgd, adam = finished(store), finished(store, optimizer="adam")
    finished(store, methods=["reference"])
    birds = {"model": "resnet50", "dataset": {"name": "image-folder", "path": "birds"}}
    folder = finished(store, **birds)
    running, token = start(store)
    record(store, running, token, epoch(1))
    jobs.cancel(store, submit(store))
    assert evidence(store) == [adam, sgd]
    assert evidence(store, limit=1) == [adam]
    assert evidence(store, optimizer="sgd") == [sgd]
    assert evidence(store, model="lenet5-bn") == evidence(store, dataset="mnist") == []
    of_birds = {"model": "resnet50", "dataset": "image-folder"}
    assert evidence(store, **of_birds, path="birds") == [folder]
    assert evidence(store, **of_birds, path="bees") == []


def test_evidence_is_of_one_task_before_it_is_counted(store):
    oldest, classified = finished(store), finished(store)
    twins = finished(store, task="barlow-twins")
    with store.write() as session:  # from before a spec named its task
        job = session.scalars(select(Job).where(Job.id == oldest)).one()
        job.spec = {key: value for key, value in job.spec.items() if key != "task"}
    assert evidence(store) == [classified, oldest]
    assert evidence(store, limit=1) == [classified]
    assert evidence(store, task="barlow-twins") == [twins]
