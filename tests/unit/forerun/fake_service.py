"""Stands in for `python -m api` in the tests of the demo: `python -m tests.unit.forerun.fake_service MODE`.

One job, and no Ray. MODE: succeeds, fails (the job does), hangs (so does the job), stubborn (ends on SIGKILL only),
dies (in the middle of the job), broken (does not start), slow (never ready). What came is noted in the home folder.
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event as Never

from tests.unit.forerun.service_double import Document, branch, epoch_event, job, lr_step, sent, state_event, succeeded

MODE = sys.argv[1]
HOME = Path(os.environ["FORERUN_HOME"])
ERROR = {"code": "diverged", "message": "every branch diverged"}
END = state_event(4, "failed", **ERROR) if MODE == "fails" else state_event(4, "succeeded")
EVENTS: list[Document] = [
    state_event(1, "queued"),
    state_event(2, "running", attempt=1),
    epoch_event(3, 1, branch(1, 0.1, 0.5, "chosen")),
]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.endswith("/events"):
            self._events()
        elif "/lr-history" in self.path:
            self._answer({"items": [lr_step(1, learning_rate=0.005), lr_step(2, learning_rate=0.1)]})
        else:
            self._answer(job(state="failed", error=ERROR) if MODE == "fails" else succeeded())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/cancel"):
            (HOME / "cancelled").touch()
        else:
            (HOME / "spec.json").write_bytes(body)
        self._answer(job())

    def _answer(self, document: object) -> None:
        self._begin("application/json")
        self.wfile.write(json.dumps(document).encode())

    def _events(self) -> None:
        self._begin("text/event-stream")
        self.wfile.write("".join(map(sent, EVENTS)).encode())
        if MODE == "hangs":
            Never().wait()
        if MODE == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        self.wfile.write(sent(END).encode())

    def _begin(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.end_headers()


def main() -> None:
    print(f"the fake service is {MODE}", flush=True)
    (HOME / "process").write_text(str(os.getpid()))
    settings = {key: value for key, value in os.environ.items() if key.startswith("FORERUN_")}
    (HOME / "settings.json").write_text(json.dumps(settings))
    match MODE:
        case "broken":
            sys.exit(3)
        case "slow":
            signal.pause()
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    ready = {
        "pid": os.getpid(),
        "url": url,
        "docs_url": f"{url}/docs",
        "dashboard_url": "http://ray.test:8265",
        "dashboard_token_file": str(HOME / "ray-token"),
    }
    (HOME / "unfinished").write_text(json.dumps(ready))
    (HOME / "unfinished").rename(HOME / "service.json")
    server.serve_forever()


if __name__ == "__main__":
    main()
