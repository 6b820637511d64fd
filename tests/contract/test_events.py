"""Server-sent events, over a real server: what has not happened yet cannot be in the stream."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

import httpx
import jsonschema
import pytest
from httpx_sse import EventSource, ServerSentEvent, connect_sse
from sqlalchemy import update

from api.deps import Services
from api.server import Server, listening_socket
from service.jobs import lifecycle as jobs
from service.store import tables
from service.store.engine import Store
from tests.application import app_over
from tests.builders import JSON, Worker, claim, epoch_record, run_to_success, submit

pytest_plugins = ["tests.databases"]

DEADLINE = 20  # seconds without a byte until a read fails
STREAM = {"Content-Type": "text/event-stream"}


@pytest.fixture
def server(services: Services) -> Iterator[Server]:
    """A real server. It says by its `ready` when it accepts requests."""
    ready = Event()
    server = Server(app_over(services), "warning", ready.set)
    with listening_socket("127.0.0.1", 0) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert ready.wait(DEADLINE)
        try:
            yield server
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive()


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    host, port = server.servers[0].sockets[0].getsockname()
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=DEADLINE) as client:
        yield client


def seen(event: ServerSentEvent) -> tuple[str, str, Any]:
    data = json.loads(event.data)
    assert data["number"] == int(event.id)
    assert data["kind"] == event.event
    assert data["created_at"].endswith("Z")
    return event.id, event.event, data["state"] if event.event == "state" else data["epoch"]


WHOLE = [
    ("1", "state", "queued"),
    ("2", "state", "submitting"),
    ("3", "state", "running"),
    ("4", "epoch", 1),
    ("5", "epoch", 2),
    ("6", "epoch", 3),
    ("7", "state", "succeeded"),
]


def test_each_event_comes_as_it_happens(http: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(http)
    with connect_sse(http, "GET", f"/v1/jobs/{job_id}/events") as stream:
        events = map(seen, stream.iter_sse())
        assert next(events) == WHOLE[0]
        worker = Worker.started(http, claim(sqlite_store))
        assert [next(events), next(events)] == WHOLE[1:3]
        for epoch in (1, 2, 3):
            worker.report(epoch_record(epoch)).raise_for_status()
            assert next(events) == WHOLE[2 + epoch]
        worker.finish().raise_for_status()
        assert list(events) == WHOLE[6:]  # and the stream ends by itself


def test_epoch_events_carry_the_record(http: httpx.Client, sqlite_store: Store) -> None:
    job_id = run_to_success(http, sqlite_store)
    with connect_sse(http, "GET", f"/v1/jobs/{job_id}/events") as stream:
        events = {event.id: json.loads(event.data) for event in stream.iter_sse()}
    record = epoch_record(1)
    for key in record.keys() - {"branches"}:
        assert events["4"][key] == record[key]
    assert [branch["learning_rate"] for branch in events["4"]["branches"]] == [0.1, 0.2, 0.05]
    assert events["4"]["attempt"] == 1


def test_resumed_while_the_job_runs_on(http: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(http)
    path = f"/v1/jobs/{job_id}/events"
    with connect_sse(http, "GET", path) as stream:
        first = [seen(next(stream.iter_sse()))]

    def work() -> None:
        worker = Worker.started(http, claim(sqlite_store))
        for epoch in (1, 2, 3):
            worker.report(epoch_record(epoch)).raise_for_status()
        worker.finish().raise_for_status()

    background = Thread(target=work)
    background.start()
    for _ in range(2):  # twice cut off after two events
        with connect_sse(http, "GET", path, headers={"Last-Event-ID": first[-1][0]}) as stream:
            events = stream.iter_sse()
            first += [seen(next(events)), seen(next(events))]
    with connect_sse(http, "GET", path, headers={"Last-Event-ID": first[-1][0]}) as stream:
        rest = [seen(event) for event in stream.iter_sse()]
    background.join(DEADLINE)
    assert first + rest == WHOLE
    assert len(first) == 5


@pytest.mark.parametrize("number", range(7))
def test_resumed_anywhere_it_gives_exactly_the_rest(client: httpx.Client, sqlite_store: Store, number: int) -> None:
    path = f"/v1/jobs/{run_to_success(client, sqlite_store)}/events"
    by_header = {"headers": {"Last-Event-ID": str(number)}}
    by_query = {"params": {"after": str(number)}}
    both = {"headers": {"Last-Event-ID": str(number)}, "params": {"after": "1"}}  # a reconnecting browser: header wins
    for request in (by_header, by_query, both):
        with connect_sse(client, "GET", path, **request) as stream:  # type: ignore[arg-type]
            assert [seen(event) for event in stream.iter_sse()] == WHOLE[number:]


def test_nothing_left_to_come(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = run_to_success(client, sqlite_store)
    response = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "7"})
    assert (response.status_code, response.content) == (204, b"")


def test_ends_after_a_cancel(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client)
    Worker.started(client, claim(sqlite_store))
    client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON)
    jobs.confirm_cancelled(sqlite_store, job_id)
    with connect_sse(client, "GET", f"/v1/jobs/{job_id}/events?after=3") as stream:
        assert [seen(event)[2] for event in stream.iter_sse()] == ["cancelling", "cancelled"]


def test_more_events_than_one_read_brings(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = run_to_success(client, sqlite_store)
    with sqlite_store.write() as session:
        now = datetime.now(UTC)
        trial = {"label": "tpe", "method": "tpe", "trial": 1, "seed": 0, "config": {}, "epochs": 3, "state": "running"}
        session.add_all(
            tables.Event(job_id=job_id, number=n, kind="trial", data=trial, created_at=now) for n in range(8, 1205)
        )
        session.execute(update(tables.Job).where(tables.Job.id == job_id).values(last_event=1204))
    with connect_sse(client, "GET", f"/v1/jobs/{job_id}/events") as stream:
        assert [int(event.id) for event in stream.iter_sse()] == list(range(1, 1205))


def test_what_is_sent_is_what_the_document_promises(client: httpx.Client, sqlite_store: Store) -> None:
    document = client.get("/openapi.json").json()
    promised = document["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert promised["itemSchema"]["properties"]["data"] == {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": "#/components/schemas/Event"},
    }
    (example,) = EventSource(httpx.Response(200, headers=STREAM, text=promised["example"])).iter_sse()
    job_id = run_to_success(client, sqlite_store)
    with connect_sse(client, "GET", f"/v1/jobs/{job_id}/events") as stream:
        events = [example, *stream.iter_sse()]
    assert [event.event for event in events] == ["state", *(kind for _, kind, _ in WHOLE)]
    schema = {"$ref": "#/components/schemas/Event", "components": document["components"]}
    for event in events:
        jsonschema.validate(json.loads(event.data), schema)
    assert set(json.loads(events[4].data)) == set(document["components"]["schemas"]["EpochEvent"]["properties"])
    assert json.loads(example.data).keys() == json.loads(events[1].data).keys()


def test_a_stop_of_the_service_ends_the_stream_in_order(
    server: Server, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = submit(http)
    with connect_sse(http, "GET", f"/v1/jobs/{job_id}/events") as stream:
        events = map(seen, stream.iter_sse())
        assert next(events) == WHOLE[0]
        server.should_exit = True
        assert list(events) == []  # else httpx would say that the answer was cut
    assert caplog.messages == []


def test_unknown_job_is_told_before_the_stream(client: httpx.Client) -> None:
    response = client.get("/v1/jobs/none/events", headers={"Accept": "text/event-stream"})
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("number", ["-1", "x", "2147483648", "1.5", "9" * 5000])
def test_wrong_numbers(client: httpx.Client, number: str) -> None:
    path = f"/v1/jobs/{submit(client)}/events"
    by_header = client.get(path, headers={"Last-Event-ID": number})
    by_query = client.get(path, params={"after": number})
    assert (by_header.status_code, by_query.status_code) == (422, 422)
    assert [error["field"] for error in by_header.json()["errors"]] == ["last-event-id"]
    assert [error["field"] for error in by_query.json()["errors"]] == ["after"]
