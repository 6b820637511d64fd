"""What reads cost: as many statements for many jobs as for few, each by an index; and what is kept for them is true.

The answers of these routes are those of the slow, obvious way: models made of the store's records, one by one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.deps import Services
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.store.engine import Session, Store
from service.store.epochs import discard_epoch, epochs_of_all_jobs, epochs_with_branches, get_epoch, insert_epoch
from service.store.tables import Epoch, Trial
from service.store.trials import get_trial, list_trials
from service.wire import answers
from tests.application import app_over
from tests.contract.conftest import FakeFleet
from tests.integration.jobs_in_sql import SUCCESS, start, submit
from tests.unit.service.reports import branch, epoch, scheduled_epoch

pytest_plugins = ["tests.databases"]

ROUTES = {
    "list": "/v1/jobs",
    "list by filters": "/v1/jobs?model=lenet5&state=succeeded,failed",
    "show": "/v1/jobs/{job_id}",
    "lr-history": "/v1/jobs/{job_id}/lr-history",
    "history": "/v1/lr-history",
    "history by filters": "/v1/lr-history?model=lenet5&dataset=digits&label=cosine",
    "trials": "/v1/jobs/{job_id}/trials",
    "comparison": "/v1/jobs/{job_id}/comparison",
    "recommendation": "/v1/recommendation?model=lenet5&dataset=digits",
}
METHODS = ["stpt", "cosine"]


@pytest.fixture(params=["sqlite_store", "postgres_store"])
def store(request: pytest.FixtureRequest) -> Store:
    """A store like that of tests.databases, without the check of invariants, which know no epochs without events."""
    store: Store = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    services = Services(store, FakeFleet(), tmp_path, True, hosts=frozenset({"testserver"}))
    with TestClient(app_over(services)) as client:
        yield client


def succeeded(store: Store, **changes: Any) -> str:
    """Make a job of stpt and cosine that has succeeded, and return its id."""
    job_id, token = start(store, methods=METHODS, **changes)
    for number, rate in enumerate((0.2, 0.1, 0.05), start=1):
        branches = [branch(1, learning_rate=2 * rate), branch(2, learning_rate=rate, state="chosen", metric=0.625)]
        changed = {"val_accuracy": 0.5 + rate, "test_accuracy": rate, "branches": branches}
        record = epoch(number, learning_rate=rate, **changed)
        reports.record_epoch(store, job_id, token, record)
    for number in (1, 2, 3):
        reports.record_epoch(store, job_id, token, scheduled_epoch(number, label="cosine"))
    reports.finish(store, job_id, token, SUCCESS)
    return job_id


@contextmanager
def statements(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """What is asked of the database inside the block: statements and their parameters. Whether there are API keys is
    asked beside them, once a second."""
    asked: list[tuple[str, Any]] = []

    def hear(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("SELECT") and "FROM api_keys" not in statement:
            asked.append((statement, parameters))

    sa.event.listen(store._engine, "before_cursor_execute", hear)
    try:
        yield asked
    finally:
        sa.event.remove(store._engine, "before_cursor_execute", hear)


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES.keys())
def test_as_many_statements_for_many_jobs_as_for_few(store: Store, client: httpx.Client, path: str) -> None:
    job_id = succeeded(store)
    waiting = submit(store)  # of which its place in the queue is told

    def asked() -> int:
        with statements(store) as heard:
            client.get(path.format(job_id=job_id)).raise_for_status()
        return len(heard)

    few = asked()
    jobs.cancel(store, waiting)
    for _ in range(4):
        succeeded(store)
    submit(store)
    assert asked() == few <= 7


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES.keys())
def test_every_statement_goes_by_an_index(store: Store, client: httpx.Client, path: str) -> None:
    job_id = succeeded(store)
    with statements(store) as heard:
        client.get(path.format(job_id=job_id)).raise_for_status()
    with store.connect_to_read() as connection:
        postgres = connection.dialect.name == "postgresql"
        if postgres:  # which of a small table reads all of it rather
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN " if postgres else "EXPLAIN QUERY PLAN "
        for statement, parameters in heard:
            plan = [row[-1] for row in connection.exec_driver_sql(explain + statement, parameters)]
            # from the newest job on, as far as a page goes
            whole = [line for line in plan if "Seq Scan" in line or (line.startswith("SCAN") and line != "SCAN jobs")]
            assert whole == [], "\n".join([statement, *plan])
            if "LIMIT" in statement and "lr_schedule" not in statement:  # evidence is sorted, of 100 jobs at most
                assert "USE TEMP B-TREE FOR ORDER BY" not in plan, "\n".join([statement, *plan])


# --- the same answers ------------------------------------------------------------------------------------


def test_a_page_of_all_epochs_is_that_of_its_models(store: Store, client: httpx.Client) -> None:
    for _ in range(2):
        succeeded(store)
    with store.read() as session:
        page = epochs_of_all_jobs(session, limit=7)
    steps = [answers.HistoryStep.model_validate(one) for one in page.items]
    slow = answers.HistoryPage(items=steps, next_cursor=page.next_cursor)
    assert slow.next_cursor is not None
    assert client.get("/v1/lr-history?limit=7").text == slow.model_dump_json()
    rows = client.get("/v1/lr-history?limit=7&format=csv").text.splitlines()
    assert rows[0] == ",".join(answers.HistoryStep.model_fields)
    assert rows[1:] == [",".join(map(str, step.model_dump().values())) for step in steps]


def test_the_history_of_a_job_is_that_of_its_epochs_and_branches(store: Store, client: httpx.Client) -> None:
    job_id = succeeded(store)
    with store.read() as session:
        epochs = epochs_with_branches(session, job_id)
    steps, so_far = [], dict.fromkeys(METHODS, 0)
    for one in epochs:
        so_far[one.label] += one.samples
        rates = [branch.learning_rate for branch in one.branches]
        steps.append(answers.LrStep(**vars(one), candidates=rates, samples_so_far=so_far[one.label]))
    slow = answers.LrHistory(job_id=job_id, items=steps)
    assert client.get(f"/v1/jobs/{job_id}/lr-history").text == slow.model_dump_json()


def test_evidence_that_is_not_kept_is_read_from_epochs(store: Store, client: httpx.Client) -> None:
    for rate in (0.1, 0.2, 0.3):
        succeeded(store, optimizer="adam", initial_learning_rate=rate)
    path = "/v1/recommendation?model=lenet5&dataset=digits&batch=256"
    kept = client.get(path).raise_for_status()
    assert kept.json()["evidence"][0]["learning_rate"] == 0.1  # the median of 0.2, 0.1 and 0.05
    with store.write() as session:  # as it was before it was kept
        session.execute(sa.update(Trial).values(settled_learning_rate=None))
    assert client.get(path).text == kept.text


# --- what is kept ----------------------------------------------------------------------------------------

ACCURACY = st.sampled_from([0.25, 0.5, 0.75])
Change = tuple[str, int, float, int]  # what, to which epoch, its accuracy and samples
CHANGE = st.tuples(st.sampled_from(["next", "replace", "discard"]), st.integers(1, 6), ACCURACY, st.integers(1, 9))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGE, max_size=12))
def test_what_a_trial_keeps_is_what_its_epochs_come_to(store: Store, changes: list[Change]) -> None:
    job_id = submit(store, epochs=20)
    lost = 0
    with store.write() as session:
        [trial] = list_trials(session, job_id)
        for what, place, accuracy, samples in changes:
            last = session.scalar(sa.select(sa.func.count()).where(Epoch.trial_id == trial.id)) or 0
            number = last + 1 if what == "next" else min(place, last) if what == "replace" else last
            known = get_epoch(session, trial.id, number)
            if known is not None:
                discard_epoch(session, known)
                lost += known.samples
            if number and what != "discard":
                record = epoch(number, val_accuracy=accuracy, samples=samples)
                insert_epoch(session, trial.id, record, attempt=1, recorded_at=datetime.now(UTC))
            session.expunge_all()  # SQLite gives the id of a deleted row to the next one
            assert kept(session, trial.id) == recomputed(session, trial.id)
        again = get_trial(session, job_id, "stpt", 1)
    assert again is not None
    assert again.lost_samples == lost


def kept(session: Session, trial_id: int) -> tuple[Any, ...]:
    columns = (Trial.epochs_done, Trial.samples, Trial.best_epoch)
    return tuple(session.execute(sa.select(*columns).where(Trial.id == trial_id)).one())


def recomputed(session: Session, trial_id: int) -> tuple[Any, ...]:
    columns = (Epoch.epoch, Epoch.samples, Epoch.val_accuracy)
    rows = session.execute(sa.select(*columns).where(Epoch.trial_id == trial_id)).all()
    best = max(rows, key=lambda row: (row.val_accuracy, -row.epoch), default=None)
    return len(rows), sum(row.samples for row in rows), best and best.epoch
