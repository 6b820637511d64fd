"""The command `forerun demo`: a service of its own, one job over HTTP, shown live; then everything is ended.

The service runs in a session of its own, so that Ctrl-C reaches this process alone, which then ends it in order.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout
from rich.console import Console

from forerun.client import Client, ServiceUnreachable, raise_unless_succeeded
from forerun.display.live import follow
from forerun.program import program
from service.errors import ForerunError
from service.wire.answers import Job

COMMAND = [sys.executable, "-P", "-m", "api"]  # -P: not a folder `api` that happens to lie here
START_S, STOP_S = 180.0, 60.0  # Ray takes 8 s on a good day, both to start and to end
DYING_S = 1.0  # a connection may break before its process has ended
POLL_S = 0.1
LOG_LINES = 20
# Settings of the user's own service that would make the demo's one work on its jobs or in its cluster.
# and the address of a service that others reach: the demo's is for this machine, and asks for no key
NOT_OURS = ("FORERUN_API_URL", "FORERUN_DATABASE_URL", "FORERUN_HOST", "FORERUN_RAY_ADDRESS", "FORERUN_RAY_TOKEN")


class DemoFailed(ForerunError):
    """The demo's service did not start, or no longer answers."""

    code, title = "demo_failed", "The demo failed"


class Ready(TypedDict):
    """What the service writes to `<home>/service.json` when it is ready: where it and its Ray dashboard answer."""

    pid: int
    url: str
    docs_url: str
    dashboard_url: str
    dashboard_token_file: str | None


class Result(TypedDict):
    """The result of a demo. `lr_history` is the chosen learning rate of each epoch; `seconds` is the time from the
    submission to the terminal state."""

    job_id: str
    test_accuracy: float | None
    lr_history: list[float]
    seconds: float


class ServerNotInstalled(ForerunError):
    """A command needs the service, and only the client and the command line are installed."""

    code, title = "server_not_installed", "The service is not installed"


def require_server() -> None:
    """Raise ServerNotInstalled where only the client and the command line are installed."""
    missing = [name for name in ("fastapi", "ray", "sqlalchemy", "torch") if find_spec(name) is None]
    if missing:
        raise ServerNotInstalled(
            f"the service needs {', '.join(missing)}: pip install 'forerun[server,worker]', or name a service that "
            "runs elsewhere with --url or FORERUN_URL"
        )


def run(spec: Mapping[str, Any], home: Path, console: Console) -> Result:
    """Train `spec` on a service of its own, whose files stay in `home`; nothing runs any more when this returns.

    Raises DemoFailed when the service does not start, JobFailed when the job does not succeed, ApiError when the spec
    is refused. SIGTERM and SIGHUP end it as Ctrl-C does.
    """
    with _exit_on(signal.SIGTERM, signal.SIGHUP):
        with service(home, console) as ready, Client(ready["url"], api_key="") as client:
            console.print(f"API              {ready['docs_url']}", soft_wrap=True)
            dashboard = f"{ready['dashboard_url']} (its token is in {ready['dashboard_token_file']})"
            console.print(f"Ray's dashboard  {dashboard}", soft_wrap=True)
            began = time.monotonic()
            job = _train(client, client.submit(spec).answer, console)
            seconds = time.monotonic() - began
            history = client.lr_history(job.id)
        raise_unless_succeeded(job)
        console.print(f"Test accuracy {job.test_accuracy:.4f} after {job.epochs} epochs in {seconds:.0f} s.")
        console.print(f"To see it again: FORERUN_HOME={shlex.quote(str(home))} {program()} serve", soft_wrap=True)
        console.print(f"      and then:  {ready['url']}{job.links.self}", soft_wrap=True)
        return {
            "job_id": job.id,
            "test_accuracy": job.test_accuracy,
            "lr_history": [step.learning_rate for step in history],
            "seconds": round(seconds, 2),
        }


def _train(client: Client, job: Job, console: Console) -> Job:
    """Follow the job live and return it once it has ended. Where that is not to be, it is cancelled: the next demo must
    not go on with it."""
    try:
        follow(job, client.events(job.id), console)
        return client.read_job(job.id)
    except BaseException:
        with contextlib.suppress(ForerunError):
            client.cancel(job.id)
        raise


@contextlib.contextmanager
def service(home: Path, console: Console) -> Iterator[Ready]:
    """A service with its files in `home`, ready to be used, which is ended on leaving. Raises DemoFailed where it does
    not start."""
    console.print(f"Starting the service; its files and its log are in {home} …", soft_wrap=True)
    for folder in (*reversed(home.parents), home):  # mkdir's `parents` would be open to everybody
        folder.mkdir(exist_ok=True, mode=0o700)
    file, log = home / "service.json", home / "service.log"
    try:
        with FileLock(home / "service.lock", timeout=0):  # a service holds it as long as it runs
            file.unlink(missing_ok=True)  # of a service that was killed: in a container ours may get the same pid
    except Timeout:
        raise DemoFailed(f"a service runs in {home} already; end it, or choose another --home") from None
    environment = {key: value for key, value in os.environ.items() if key not in NOT_OURS}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own module
            COMMAND,
            env={"FORERUN_LOG_FORMAT": "text"} | environment | {"FORERUN_HOME": str(home), "FORERUN_AUTH": "open"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _wait_until_ready(process, file, log)
    except ServiceUnreachable:
        raise _failed(process, log, "does not answer any more") from None
    finally:
        try:
            if process.poll() is None:
                console.print("Ending the service …")
        finally:  # nobody may be there to read that
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], file: Path, log: Path) -> Ready:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        ready = _read(file)
        if ready is not None and ready["pid"] == process.pid:
            return ready
        time.sleep(POLL_S)
    raise _failed(process, log, f"was not ready within {START_S:g} s")


def _failed(process: subprocess.Popen[bytes], log: Path, what: str) -> DemoFailed:
    """The error that says why the demo's service failed, with the end of its log: `what` where the process runs on,
    else its exit code."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=DYING_S)
    why = what if process.returncode is None else f"ended with exit code {process.returncode}"
    tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return DemoFailed("\n".join([f"the service {why}; the end of its log, {log}:", *(f"  {line}" for line in tail)]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_S)
    finally:
        if process.poll() is None:  # it hangs, or somebody lost patience: a second Ctrl-C
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(file: Path) -> Ready | None:
    try:
        ready: Ready = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    return ready


@contextlib.contextmanager
def _exit_on(*signals: signal.Signals) -> Iterator[None]:
    """Turn these signals into SystemExit, so that every `finally` is run."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
