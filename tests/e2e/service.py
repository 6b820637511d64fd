"""Starts a real service in a process of its own: API, controller and an embedded Ray head."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from forerun.client import Client
from tests.processes import descendants, wait_until


@dataclass(frozen=True)
class Service:
    process: subprocess.Popen[bytes]
    home: Path
    url: str
    dashboard_url: str
    token: str

    @property
    def client(self) -> Client:
        return Client(self.url)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End the service and wait until none of its processes is left."""
        family = descendants(self.process.pid)
        self.process.send_signal(signal_number)
        exit_code = self.process.wait(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive, [process.cmdline() for process in alive]
        if signal_number != signal.SIGKILL:
            assert exit_code == 0
            assert not (self.home / "service.json").exists()
            assert not (self.home / "ray-token").exists()


@contextmanager
def running_service(home: Path, **environment: str) -> Iterator[Service]:
    """Start a service and stop it at the end, unless the test has."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "service.json").unlink(missing_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FORERUN_", "RAY_"))}
    log = home / "service.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"],
            env={**inherited, "FORERUN_HOME": str(home), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-4000:]
        return (home / "service.json").exists()

    try:
        wait_until(ready, 180)
        facts = json.loads((home / "service.json").read_text())
        token_file = facts["dashboard_token_file"]  # None: the cluster is not this service's own
        token = Path(token_file).read_text() if token_file else ""
        service = Service(process, home, facts["url"], facts["dashboard_url"], token)
        yield service
        if process.poll() is None:
            service.stop()
    finally:
        if process.poll() is None:
            for one in descendants(process.pid):
                one.kill()
