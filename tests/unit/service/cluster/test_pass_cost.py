"""What a pass of the controller costs, in statements and requests: the same however many jobs wait or have ended."""

from collections import Counter

import pytest
from sqlalchemy import event

from service.cluster.base import Capacity, RayJobStatus
from service.cluster.controller import Controller
from service.cluster.fake import FakeCluster
from service.cluster.lease import Lease
from service.jobs import reports
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.store.engine import Store
from service.wire.worker import Outcome
from tests.builders import spec_document

pytest_plugins = ["tests.databases"]


class CountingCluster(FakeCluster):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __getattribute__(self, name):
        if name in ("capacity", "overview", "find", "stop", "submit", "logs"):
            self.calls[name] += 1
        return super().__getattribute__(name)


class Costs:
    """The statements and requests of a controller's passes over a database."""

    def __init__(self, store: Store) -> None:
        self.store, self.cluster = store, CountingCluster()
        clock = {"monotonic": lambda: 0.0}  # what comes every few seconds comes once
        self.controller = Controller(store, self.cluster, {}, lease=Lease(store, "home", **clock), **clock)
        self.statements: list[str] = []
        event.listen(store._engine, "before_cursor_execute", lambda *args: self.statements.append(args[2]))

    def submit(self, count: int) -> None:
        for _ in range(count):
            submit_job(self.store, JobSpec.model_validate(spec_document(epochs=1)))

    def of_a_pass(self) -> tuple[int, dict[str, int]]:
        self.statements.clear()
        self.cluster.calls.clear()
        self.controller.run_pass()
        return len(self.statements), dict(self.cluster.calls)


@pytest.fixture
def costs(sqlite_store) -> Costs:
    return Costs(sqlite_store)


def test_a_backlog_costs_nothing(costs):
    costs.cluster.capacity_value = Capacity(cpus=2, gpus=0)
    costs.submit(3)
    costs.of_a_pass()  # two run from now on, one waits
    costs.of_a_pass()  # their first look for what hangs
    with_one = costs.of_a_pass()
    costs.submit(60)
    assert costs.of_a_pass() == with_one
    statements, requests = with_one
    assert requests == {"capacity": 1, "overview": 1}
    assert statements == 11
    assert not [one for one in costs.statements if one.startswith(("UPDATE", "INSERT", "BEGIN IMMEDIATE"))]


def test_nor_do_jobs_that_run_or_have_ended(costs):
    costs.cluster.capacity_value = Capacity(cpus=40, gpus=0)
    costs.submit(2)
    costs.of_a_pass()
    costs.of_a_pass()
    with_two = costs.of_a_pass()
    costs.submit(38)
    costs.of_a_pass()
    assert costs.of_a_pass() == with_two
    for submission_id, job_id, environment in costs.cluster.submitted[2:]:
        token = reports.exchange_ticket(costs.store, job_id, environment["FORERUN_TICKET"]).report_token
        reports.finish(costs.store, job_id, token, Outcome(state="failed", code="diverged", message="all"))
        costs.cluster.set_status(submission_id, RayJobStatus.FAILED)
    costs.of_a_pass()  # their logs are kept
    assert costs.of_a_pass() == with_two


def test_an_idle_service_asks_little(costs):
    costs.of_a_pass()
    assert costs.of_a_pass() == (8, {"capacity": 1, "overview": 1})
    assert costs.controller._idle  # and not as often
