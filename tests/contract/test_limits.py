"""The limits of the server, over real connections: how many, how long, how large. Their clients are sockets, which may
be slower and ruder than any HTTP client is."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from api.deps import Services
from api.headers import SECURITY_HEADERS
from api.limits import MAX_HEADER_BYTES, MAX_TARGET_BYTES, Limits
from api.server import Server, listening_socket
from service.validation.door import MAX_SPEC_BYTES
from tests.application import app_over
from tests.builders import JSON, spec_document, submit
from tests.processes import wait_until

pytest_plugins = ["tests.databases"]

DEADLINE = 30
SOON = 0.3  # seconds: a limit that a test waits for
Serve = Callable[..., AbstractContextManager[tuple[str, int]]]


@pytest.fixture
def serve(services: Services) -> Serve:
    @contextmanager
    def serve(**limits: Any) -> Iterator[tuple[str, int]]:
        """A server with these limits, and the default ones besides; its address."""
        ready, within = Event(), Limits(**limits)
        app = app_over(replace(services, max_event_streams=within.event_streams))
        server = Server(app, "critical", ready.set, within)
        with listening_socket("127.0.0.1", 0) as listener:
            thread = Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            assert ready.wait(DEADLINE)
            try:
                yield listener.getsockname()
            finally:
                server.should_exit = True
                thread.join(DEADLINE)
                assert not thread.is_alive()

    return serve


def connect(address: tuple[str, int], *parts: bytes) -> socket.socket:
    connection = socket.create_connection(address, timeout=DEADLINE)
    for part in parts:
        connection.sendall(part)
    return connection


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()


def post(path: str, length: int) -> bytes:
    return head("POST", path, "Content-Type: application/json", f"Content-Length: {length}")


def to_the_end(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    with connection:
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


def answered(connection: socket.socket, request: bytes = head("GET", "/healthz")) -> bool:
    """Whether the connection takes a request, and the answer is a whole one of 200."""
    connection.sendall(request)
    received = b""
    while not received.endswith(b'{"status":"ok"}'):
        if not (chunk := connection.recv(65536)):
            return False
        received += chunk
    return received.startswith(b"HTTP/1.1 200 OK\r\n")


def problem(answer: bytes, status: int, code: str) -> dict[str, Any]:
    """The problem document in an answer, which has every header that answers have, and ends the connection."""
    first, _, body = answer.partition(b"\r\n\r\n")
    lines = first.decode().split("\r\n")
    headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines[1:]])
    assert lines[0].startswith(f"HTTP/1.1 {status} ")
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Connection"] == "close"
    assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert ("Retry-After" in headers) == (status == 503)
    document: dict[str, Any] = json.loads(body)
    assert (document["status"], document["code"]) == (status, code)
    return document


def client_of(address: tuple[str, int]) -> httpx.Client:
    return httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=DEADLINE, trust_env=False)


def health(address: tuple[str, int]) -> int:
    with client_of(address) as http:
        return http.get("/healthz").status_code


# --- time ------------------------------------------------------------------------------------------------


def test_a_header_that_does_not_end(serve: Serve) -> None:
    with serve(header_seconds=SOON) as address:
        answer = to_the_end(connect(address, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"))
        assert problem(answer, 408, "request_timeout")["detail"] == (
            "the header took more than 0.3 s to arrive; send it at once"
        )


def test_a_byte_now_and_then_does_not_extend_the_time(serve: Serve) -> None:
    with serve(header_seconds=SOON, body_seconds=SOON) as address:
        for beginning in (b"", post("/v1/jobs", 1000)):
            connection = connect(address, beginning or b"GET /")
            connection.settimeout(0.02)  # between two bytes
            answer = b""
            while not answer:
                try:
                    answer = connection.recv(65536)
                except TimeoutError:
                    connection.sendall(b"x")
            problem(answer, 408, "request_timeout")


def test_a_connection_that_says_nothing_is_closed_without_a_word(serve: Serve) -> None:
    with serve(header_seconds=SOON) as address:
        assert to_the_end(connect(address)) == b""


def test_the_second_header_of_a_connection_has_as_much_time(serve: Serve) -> None:
    with serve(header_seconds=SOON) as address:
        answer = to_the_end(connect(address, head("GET", "/healthz"), b"GET /healthz"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        problem(answer[answer.index(b"HTTP/1.1 408") :], 408, "request_timeout")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plan", "/v1/experiments", "/internal/jobs/job-1/ticket"])
def test_a_body_that_does_not_end(serve: Serve, path: str) -> None:
    with serve(body_seconds=SOON) as address:
        answer = problem(to_the_end(connect(address, post(path, 1000), b'{"mod')), 408, "request_timeout")
        assert answer["detail"] == "the body took more than 0.3 s to arrive; send it at once"
        assert answer["instance"] == path


def test_bodies_that_do_not_end_hold_up_nobody(serve: Serve, services: Services) -> None:
    with serve() as address, ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(address, post("/v1/jobs", 1000), b"{"))
        with client_of(address) as http:
            job_id = submit(http)
            assert [job["id"] for job in http.get("/v1/jobs").json()["items"]] == [job_id]


def test_a_stop_does_not_wait_for_a_body_that_does_not_end(serve: Serve) -> None:
    with serve() as address:
        connection = connect(address, post("/v1/jobs", 1000))
        assert health(address) == 200  # so the server has seen what was sent before
    assert problem(to_the_end(connection), 503, "stopping")["instance"] == "/v1/jobs"


def test_a_body_that_nobody_reads_does_not_keep_the_connection(
    serve: Serve, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.protocol.LINGER_SECONDS", SOON)
    with serve(keep_alive_seconds=DEADLINE) as address:
        answer = to_the_end(connect(address, head("GET", "/healthz", "Content-Length: 1000"), b"x"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_connection_between_two_requests_is_kept_for_a_while(serve: Serve) -> None:
    with serve(keep_alive_seconds=1) as address:
        connection = connect(address)
        assert answered(connection)
        assert answered(connection)
        assert to_the_end(connection) == b""  # it is closed


def test_an_answer_that_nobody_reads_is_given_up(serve: Serve) -> None:
    with serve(write_seconds=SOON) as address:
        asset = head("GET", "/docs/assets/swagger-ui-bundle.js")
        connection = connect(address, *[asset] * 20)  # 30 MB: more than lies in the buffers
        connection.settimeout(None)

        def is_cut() -> bool:
            try:
                connection.sendall(b"\r\n")
            except OSError:
                return True
            return False

        wait_until(is_cut, DEADLINE)
        connection.close()


# --- number ----------------------------------------------------------------------------------------------


def test_one_connection_too_many_takes_the_place_of_the_one_that_was_idle_for_longest(serve: Serve) -> None:
    with serve(connections=10) as address:
        first, second, *others = [connect(address) for _ in range(10)]
        assert all(map(answered, (first, second, *others)))
        assert answered(first)  # it is not the one that was idle for longest any more
        assert health(address) == 200
        assert second.recv(65536) == b""
        assert all(map(answered, (first, *others)))
        for connection in (first, second, *others):
            connection.close()


def test_silent_connections_shut_nobody_out(serve: Serve) -> None:
    with serve(connections=100) as address, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(address))
        assert health(address) == 200


def test_where_all_connections_are_at_work_a_new_one_is_refused(serve: Serve) -> None:
    with serve(connections=3, event_streams=3) as address, ExitStack() as stack:
        with client_of(address) as http:
            job_id = submit(http)
        for _ in range(3):
            stream = stack.enter_context(connect(address, head("GET", f"/v1/jobs/{job_id}/events")))
            assert stream.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        answer = problem(to_the_end(connect(address)), 503, "too_many_connections")
        assert answer["detail"] == "all 3 connections of this service are taken; try again later"
        stack.close()
        assert wait_until(lambda: health(address) == 200)


def test_one_stream_too_many(serve: Serve) -> None:
    with serve(event_streams=2) as address, client_of(address) as http:
        path = f"/v1/jobs/{submit(http)}/events"
        with http.stream("GET", path) as first, http.stream("GET", path) as second:
            assert (first.status_code, second.status_code) == (200, 200)
            response = http.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "too_many_streams")
            assert response.json()["detail"].startswith("2 streams of events are open, and there may be no more")
            assert response.headers["Retry-After"] == "5"

        def there_is_room() -> bool:
            with http.stream("GET", path) as response:
                return response.status_code == 200

        wait_until(there_is_room)


def test_a_comment_comes_where_nothing_else_does(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is gone without a word acknowledges none, and its connection ends (TCP_USER_TIMEOUT)."""
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    with serve() as address, client_of(address) as http:
        stream = connect(address, head("GET", f"/v1/jobs/{submit(http)}/events"))
        received = b""
        while received.count(b": ping\n\n") < 3:
            received += stream.recv(65536)
        stream.close()


# --- size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "bit by bit"])
@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (head("GET", "/healthz?" + "a" * 30_000), 414, "uri_too_long"),
        (head("GET", "/healthz", "X: " + "a" * 30_000), 431, "request_header_fields_too_large"),
        (head("GET", "/healthz", *(f"X-{n}: {n}" for n in range(3000))), 431, "request_header_fields_too_large"),
    ],
)
def test_a_header_that_is_too_long(serve: Serve, request_bytes: bytes, status: int, code: str, pause: bool) -> None:
    with serve(keep_alive_seconds=1) as address:
        parts = [request_bytes[:25_000]] if pause else [request_bytes]  # h11 gives up as soon as it has too much
        answer = to_the_end(connect(address, *parts))
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert code.encode() in answer


def test_what_is_no_http(serve: Serve) -> None:
    with serve() as address:
        for rubbish in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            problem(to_the_end(connect(address, rubbish)), 400, "bad_request")


def test_a_body_that_turns_out_to_be_no_http(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    chunked = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    with serve() as address:
        unanswered = connect(address, head("POST", "/v1/jobs", *chunked), b"no chunk\r\n")
        assert problem(to_the_end(unanswered), 400, "bad_request")["instance"] == "/v1/jobs"
        answered_already = connect(address, head("GET", "/healthz", *chunked))
        assert answered_already.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        answered_already.sendall(b"no chunk\r\n")
        assert b"HTTP/1.1" not in to_the_end(answered_already)
    assert "Traceback" not in capfd.readouterr().err


def test_nothing_tells_which_server_it_is(serve: Serve) -> None:
    with serve() as address, client_of(address) as http:
        assert "server" not in http.get("/healthz").headers


def test_the_longest_path_query_and_header(client: httpx.Client) -> None:
    room = MAX_TARGET_BYTES - len("/v1/jobs" + "name=")
    fits, too_long = (client.get("/v1/jobs?name=" + "a" * length) for length in (room, room + 1))
    assert fits.json()["errors"][0]["field"] == "name"  # it may have 200 characters: another refusal
    assert (too_long.status_code, too_long.json()["code"]) == (414, "uri_too_long")
    assert too_long.json()["detail"] == "path and query may have 8192 bytes at most; shorten them"
    answers = [client.get("/healthz", headers={"X": "a" * length}) for length in (15_000, MAX_HEADER_BYTES)]
    assert [answer.status_code for answer in answers] == [200, 431]
    assert answers[1].json()["detail"] == "the header fields may have 16384 bytes at most; send fewer, or shorter ones"


def test_a_body_that_is_too_long_is_refused_whole(serve: Serve) -> None:
    with serve() as address:
        body = json.dumps(spec_document()).ljust(20 * MAX_SPEC_BYTES)
        with client_of(address) as http:
            response = http.post("/v1/jobs", content=body, headers=JSON)
        assert (response.status_code, response.json()["code"]) == (413, "content_too_large")
        assert response.json()["detail"] == (
            f"the body has {20 * MAX_SPEC_BYTES} bytes; it may have {MAX_SPEC_BYTES} at most; shorten it"
        )
