"""A receiver of webhooks on this machine."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass
class Receiver:
    """Remembers what came, and answers with the first of `statuses` as long as there are any, then with 204.

    `location` is sent along; `drips`: seconds between the bytes of an answer that never ends."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    location: str | None = None
    drips: float | None = None
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.requests]

    def messages(self, secret: str) -> list[Any]:
        """The documents that came, each with a signature that the package for receivers takes as true."""
        return [Webhook(secret).verify(body, headers) for _, headers, body in self.requests]


@contextmanager
def receiving(**settings: Any) -> Iterator[Receiver]:
    """Run a receiver in a thread."""
    receiver = Receiver(**settings)
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append((self.path, headers, body))
            if receiver.drips is not None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while not ended.wait(receiver.drips):
                    try:
                        self.wfile.write(b"x")
                    except OSError:
                        return
                return
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            if receiver.location is not None:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", receiver.port), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield receiver
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
