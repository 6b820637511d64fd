"""The benchmark of the API: how times become one ratio a route, and its load generator on a real server."""

from itertools import repeat
from pathlib import Path

import pytest
from sqlalchemy import func, select

from api.deps import Services
from benchmarks.api import ROUTES, Measured, Requests, ratios
from benchmarks.closed_loop import request, timed
from benchmarks.many_jobs import fill, job_id_of
from service.store.engine import Store
from service.store.tables import Branch, Job
from tests.application import serving
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]


def measured(database: str, clients: int, times: float, *, bare: float = 1.0) -> Measured:
    return Measured(database, clients, "show", [times] * 100, [bare] * 100)


def test_the_worst_ratio_of_a_route_counts() -> None:
    its = [measured("sqlite", 1, 2), measured("postgresql", 1, 6, bare=2), measured("sqlite", 20, 5)]
    others = [Measured("sqlite", clients, route, [1.0, 1.0], [1.0, 1.0]) for route in ROUTES[2:] for clients in (1, 20)]
    others += [Measured("sqlite", 1, "list", [1.0, 1.0], [1.0, 1.0])]
    found = ratios(its + others)
    assert (found["p99_ratio"]["show"], found["p50_ratio"]["show"]) == (5, 3)
    assert list(found["p50_ratio"]) == list(ROUTES)


def test_every_route_answers_over_a_filled_database(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite_store, 8)
    fill(sqlite_store, 8)  # what is there already stays
    with sqlite_store.read() as session:
        assert session.scalar(select(func.count()).select_from(Branch)) == 800
        assert session.scalar(select(Job.state).where(Job.id == job_id_of(4))) == "succeeded"
    services = Services(sqlite_store, FakeFleet(), tmp_path, data_is_local=False)
    requests = Requests(8)
    with sqlite_store.read() as session:
        model, dataset = session.execute(select(Job.model, Job.dataset).where(Job.id == job_id_of(8))).one()
    monkeypatch.setattr(requests, "_names", lambda: f"model={model}&dataset={dataset}")  # others have no evidence
    with serving(services) as port:
        for route in ROUTES:
            its = requests.of(route)
            assert len(timed(port, (next(its) for _ in range(6)), clients=2)) == 6


def test_an_answer_that_is_no_success_ends_the_run(sqlite_store: Store, tmp_path: Path) -> None:
    with (
        serving(Services(sqlite_store, FakeFleet(), tmp_path, data_is_local=False)) as port,
        pytest.raises(RuntimeError, match="404 Not Found"),
    ):
        timed(port, repeat(request("GET", "/v1/jobs/none")), clients=2)
