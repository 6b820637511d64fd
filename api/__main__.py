"""The service: database, Ray, controller and API in one process. `python -m api`, or `forerun serve`.

Ready when `<home>/service.json` is there; SIGTERM or Ctrl-C ends it, and the Ray head it started.
"""

import errno
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout
from pydantic import ValidationError

from api.app import create_app
from api.deps import Services
from service.cluster import RayCluster
from service.controller import Controller
from service.head import EmbeddedHead, OwnCluster
from service.settings import Settings
from service.store import Store

log = logging.getLogger("forerun")


def main() -> None:
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = (f"FORERUN_{str(e['loc'][0]).upper()} = {e['input']!r}: {e['msg']}" for e in error.errors())
        raise SystemExit("\n".join(["forerun: the environment has settings that cannot be used", *wrong])) from None
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    home = settings.home.absolute()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        stack.enter_context(_only_service_of(home))
        store = Store(settings.database())
        stack.callback(store.close)
        store.migrate()
        listener = stack.enter_context(_listen(settings.host, settings.port))
        url = f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}"
        token_file = home / "ray-token"
        if settings.ray_address is None:
            log.info("starting a local Ray head")
            head = stack.enter_context(EmbeddedHead(settings.ray_num_cpus, settings.ray_num_gpus))
            cluster: RayCluster = OwnCluster(head)
            stack.enter_context(_file(token_file, head.token))
        else:
            token = settings.ray_token.get_secret_value() if settings.ray_token else None
            cluster = RayCluster(settings.ray_address, token, settings.ray_python)
        environment = {
            "FORERUN_API_URL": settings.api_url or url,
            "FORERUN_DATA_DIR": str(settings.data_dir.absolute()),
            "FORERUN_STORAGE_DIR": str(home / "jobs"),
        }
        controller = Controller(
            store, cluster, environment, max_attempts=settings.max_attempts, poll_seconds=settings.poll_seconds
        )
        services = Services(
            store=store,
            fleet=controller,
            data_dir=settings.data_dir.absolute(),
            data_is_local=settings.ray_address is None,
        )
        facts = {
            "pid": os.getpid(),
            "url": url,
            "docs_url": f"{url}/docs",
            "dashboard_url": cluster.dashboard_url,
            "dashboard_token_file": str(token_file) if settings.ray_address is None else None,
        }
        server = _Server(
            uvicorn.Config(create_app(services), log_level=settings.log_level.lower(), access_log=False),
            ready=lambda: stack.enter_context(_file(home / "service.json", json.dumps(facts))),
        )
        controller.start()
        if settings.ray_address is None:
            stack.callback(controller.release)
        stack.callback(controller.stop)
        # uvicorn raises the signal that ended it once more; from here it ends this block, and all it holds, in order
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        signal.signal(signal.SIGINT, lambda *_: sys.exit())
        print(_banner(facts), flush=True)
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it accepts requests."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def _banner(facts: dict[str, object]) -> str:
    login = (
        f"paste the token in {facts['dashboard_token_file']} when it asks for one"
        if facts["dashboard_token_file"]
        else "log in with the token of that cluster"
    )
    return f"""
Forerun is up.
  API           {facts["url"]}/v1/jobs
  API docs      {facts["docs_url"]}
  Ray dashboard {facts["dashboard_url"]}  ({login})
Submit a job:   forerun --url {facts["url"]} submit examples/digits.yaml --watch
Stop:           Ctrl-C
"""


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket on the port, or on the next free one."""
    for candidate in range(port, min(port + 100, 2**16)):
        try:
            return socket.create_server((host, candidate), family=_family(host), backlog=2048)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise SystemExit(f"forerun: no free port from {port} on; set FORERUN_PORT")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _reachable(host: str) -> str:
    """The host as a URL on this machine names it."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


@contextmanager
def _only_service_of(home: Path) -> Iterator[None]:
    """Two controllers with a Ray head each must not share a database."""
    try:
        with FileLock(home / "service.lock", timeout=0):
            yield
    except Timeout:
        raise SystemExit(f"forerun: another service runs with the home {home}; stop it or set FORERUN_HOME") from None


@contextmanager
def _file(path: Path, text: str) -> Iterator[None]:
    """A file for this user alone that exists while the service runs; whole from the moment it is there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    unfinished.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
