"""A database that is locked, full, damaged or away: 503 with a code and when to ask again, and a quiet log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from api.deps import Services
from service.store import engine
from service.store.engine import Store
from tests.application import app_over
from tests.builders import Worker, claim, epoch_record, spec_document, submit
from tests.databases import Postgres
from tests.disks import fill

pytest_plugins = ["tests.databases", "tests.disks"]


@contextmanager
def client_of(services: Services, store: Store) -> Iterator[httpx.Client]:
    with TestClient(app_over(replace(services, store=store)), raise_server_exceptions=False) as client:
        yield client


@contextmanager
def locked(store: Store) -> Iterator[None]:
    with store.connect() as connection:
        connection.exec_driver_sql("UPDATE leader SET url = 'locked'")
        yield
        connection.rollback()


def unavailable(response: httpx.Response) -> str:
    problem = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, problem["code"]) == (503, "database_unavailable"), problem
    assert response.headers["Retry-After"] == "5"
    return str(problem["detail"])


def refused_by_all(client: httpx.Client, worker: Worker, trouble: str) -> None:
    for _ in range(3):
        told = {
            unavailable(client.post("/v1/jobs", json=spec_document())),
            unavailable(worker.report(epoch_record(1))),
        }
        assert told == {f"{trouble}; nothing was changed by this request: try again"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["code"], ready.json()["detail"]) == (503, "not_ready", trouble)


def accepted_again(client: httpx.Client, worker: Worker) -> None:
    worker.report(epoch_record(1)).raise_for_status()
    submit(client)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says is not as it should be."""
    ours = [record for record in caplog.records if record.name.startswith(("service", "forerun"))]
    ours = [record for record in ours if record.levelno >= logging.WARNING]
    assert not any(record.exc_info for record in ours)
    return [record.getMessage().partition(" (")[0].partition(", after")[0] for record in ours]


def interrupted(
    services: Services,
    store: Store,
    outage: Callable[[], AbstractContextManager[object]],
    trouble: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A job goes on as if nothing had been behind an outage, of which the log has two lines."""
    with client_of(services, store) as client, caplog.at_level(logging.INFO):
        submit(client)
        worker = Worker.started(client, claim(store))
        with outage():
            refused_by_all(client, worker, trouble)
        accepted_again(client, worker)
    assert told(caplog) == [trouble, "the database can be used again"]


def test_a_locked_file(
    services: Services, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "PATIENCE_S", 0.01)
    store = Store(sqlite_store.url.render_as_string())
    trouble = "the database is locked: another program holds it for too long"
    interrupted(services, store, lambda: locked(sqlite_store), trouble, caplog)
    store.close()


def test_a_full_disk(
    services: Services, sqlite_template: Path, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (small_disk / "forerun.db").write_bytes(sqlite_template.read_bytes())
    store = Store(f"sqlite:///{small_disk / 'forerun.db'}")

    @contextmanager
    def full() -> Iterator[None]:
        file = fill(small_disk)
        yield
        file.unlink()

    interrupted(services, store, full, "the disk of the database is full; make room there", caplog)
    store.close()


def test_a_server_that_is_stopped_and_started(
    services: Services, postgres: Postgres, postgres_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(services, postgres_store, postgres.stopped, "the database does not answer", caplog)


def test_reads_go_on_while_the_file_is_locked(services: Services, sqlite_store: Store) -> None:
    with client_of(services, sqlite_store) as client, locked(sqlite_store):
        assert client.get("/v1/jobs").status_code == 200


def test_a_damaged_file(services: Services, sqlite_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(services, sqlite_store) as client, caplog.at_level(logging.INFO):
        job_id = submit(client)
        sqlite_store.close()
        assert sqlite_store.file is not None
        sqlite_store.file.write_bytes(b"no database" * 1000)
        for suffix in ("-wal", "-shm"):
            sqlite_store.file.with_name(sqlite_store.file.name + suffix).unlink(missing_ok=True)
        for path in ("/v1/jobs", f"/v1/jobs/{job_id}"):
            assert "restore it from a copy" in unavailable(client.get(path))
        assert client.get("/readyz").json()["detail"] == "the database is damaged; restore it from a copy"
        assert client.get("/healthz").status_code == 200
    assert told(caplog) == ["the database is damaged; restore it from a copy"]


def test_a_mistake_of_ours_is_no_outage(services: Services, sqlite_store: Store) -> None:
    with client_of(services, sqlite_store) as client:
        with sqlite_store.connect() as connection:
            connection.exec_driver_sql("DROP TABLE idempotency_keys")
            connection.commit()
        answer = client.post("/v1/jobs", json=spec_document(), headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")


def test_too_little_room(services: Services, sqlite_store: Store) -> None:
    with client_of(replace(services, min_free_bytes=2**60), sqlite_store) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "MiB are free for the service's files, and FORERUN_MIN_FREE_MB asks for" in answer.json()["detail"]
