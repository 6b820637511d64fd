"""The API over a Store on SQLite and a fleet that only remembers. The modules take tests.databases as their plugin."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from api.deps import Services
from service.cluster.base import Capacity
from service.cluster.controller import Leadership
from service.errors import ClusterUnreachable
from service.jobs.quota import NO_QUOTA, Quota
from service.store.engine import Store
from tests.application import app_over


@dataclass
class FakeFleet:
    dashboard_url: str = "http://ray.test:8265"
    capacity: Capacity | None = None
    trouble: str | None = None
    leadership: Leadership = field(default_factory=lambda: Leadership(True, "http://forerun.test:8000"))
    quota: Quota = NO_QUOTA
    wakes: int = 0
    driver_logs: dict[str, str] = field(default_factory=dict)

    def wake(self) -> None:
        self.wakes += 1

    def logs(self, submission_id: str) -> str:
        if self.trouble is not None:
            raise ClusterUnreachable(self.trouble)
        return self.driver_logs.get(submission_id, "")


@pytest.fixture
def fleet() -> FakeFleet:
    return FakeFleet()


@pytest.fixture
def services(sqlite_store: Store, fleet: FakeFleet, tmp_path: Path) -> Services:
    return Services(
        store=sqlite_store,
        fleet=fleet,
        data_dir=tmp_path / "data",
        data_is_local=True,
        hosts=frozenset({"testserver"}),
        storage_dir=tmp_path / "jobs",
    )


@pytest.fixture
def client(services: Services) -> Iterator[httpx.Client]:
    with TestClient(app_over(services), raise_server_exceptions=False) as client:
        yield client
