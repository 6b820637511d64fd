"""Traces as a collector gets them: over HTTP, from the API over a database."""

import json
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import text

from api.app import create_app
from api.deps import Services
from api.tracing import traced
from service.store.engine import DatabaseError, Store
from tests.contract.conftest import FakeFleet
from tests.integration.jobs_in_sql import submit
from tests.logging_output import log_output
from tests.receiver import Receiver, receiving

pytest_plugins = ["tests.databases"]

HOSTS = frozenset({"testserver"})


def spans(receiver: Receiver) -> list[tuple[str, bytes, bytes, dict[str, str]]]:
    """Of every span that came: its name, the ids of its trace and of its parent, and its attributes."""
    found = []
    for path, _, body in receiver.requests:
        assert path == "/v1/traces"
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            assert names["service.name"] == "forerun"
            for scope in of_resource.scope_spans:
                for span in scope.spans:
                    attributes = {one.key: str(one.value) for one in span.attributes}
                    found.append((span.name, span.trace_id, span.parent_span_id, attributes))
    return found


def test_a_request_is_a_trace_with_its_statements(store: Store, tmp_path: Path) -> None:
    job_id = submit(store)
    app = create_app(Services(store=store, fleet=FakeFleet(), data_dir=tmp_path, data_is_local=True, hosts=HOSTS))
    with receiving() as receiver, traced(app, store, receiver.url.removesuffix("/hook")), TestClient(app) as client:
        client.get(f"/v1/jobs/{job_id}").raise_for_status()
        client.get("/healthz").raise_for_status()
        client.get("/metrics").raise_for_status()
    found = spans(receiver)
    [(name, trace, parent, _)] = [one for one in found if one[0].startswith("GET")]
    assert (name, parent) == ("GET /v1/jobs/{job_id}", b"")
    statements = [one for one in found if one[1] == trace and one[0] != name]
    assert {one[0] for one in statements} - {"BEGIN"} == {"SELECT"}
    assert not any(job_id in value for one in statements for value in one[3].values())  # no values of parameters


def test_a_trace_goes_on_and_the_log_tells_of_it(sqlite_store: Store, tmp_path: Path) -> None:
    services = Services(store=sqlite_store, fleet=FakeFleet(), data_dir=tmp_path, data_is_local=True, hosts=HOSTS)
    app, trace = create_app(services), "0af7651916cd43dd8448eb211c80319c"

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("it broke")

    with (
        receiving() as receiver,
        log_output("json") as log,
        traced(app, sqlite_store, receiver.url.removesuffix("/hook")),
        TestClient(app, raise_server_exceptions=False) as client,
    ):
        client.get("/broken", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert {one[1].hex() for one in spans(receiver)} == {trace}
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    [told] = [event for event in events if "it broke" in event.get("exception", "")]
    assert told["trace_id"] == trace


def test_a_collector_that_is_away_costs_no_request(sqlite_store: Store, tmp_path: Path) -> None:
    services = Services(store=sqlite_store, fleet=FakeFleet(), data_dir=tmp_path, data_is_local=True, hosts=HOSTS)
    app = create_app(services)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        with traced(app, sqlite_store, "http://127.0.0.1:9"), TestClient(app) as client:
            answer: httpx.Response = client.get("/v1/jobs")
    assert answer.status_code == 200


def test_statements_are_watched_whether_they_succeed_or_fail(store: Store) -> None:
    seen: list[tuple[str, str | None]] = []

    def end(statement: str, error: BaseException | None) -> None:
        seen.append((statement, error and type(error).__name__))

    with store.watched(str, end):
        with store.read() as session:
            session.execute(text("SELECT 1"))
        with pytest.raises(DatabaseError), store.read() as session:
            session.execute(text("SELECT nothing"))
    with store.read() as session:
        session.execute(text("SELECT 2"))
    of_us = [one for one in seen if one[0].startswith("SELECT")]
    assert of_us[0] == ("SELECT 1", None)
    assert of_us[1] in [("SELECT nothing", "OperationalError"), ("SELECT nothing", "UndefinedColumn")]
    assert len(of_us) == 2
