"""The service as one process: database, Ray, controller and API. Run it by `python -m api [PROGRAM]` or `forerun
serve`.

PROGRAM is what the user calls the command line; the service's hints repeat it.

The service is ready when the file `<home>/service.json` is there; SIGTERM or Ctrl-C ends it, and the Ray head that it
started.
"""

import errno
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from ipaddress import ip_address
from pathlib import Path

from fastapi import FastAPI

from api.app import create_app
from api.computing import Computing
from api.deps import Services
from api.gate import Gate
from api.limits import Limits, raise_descriptor_limit
from api.server import Server, collect_less_garbage, listening_socket
from api.startup import id_of_service, only_service_of, open_database, read_settings, unusable
from service.cluster.controller import Controller
from service.cluster.lease import Lease
from service.cluster.local_head import EmbeddedHead, OwnCluster
from service.cluster.ray_jobs import RayCluster
from service.jobs.deletion import Housekeeper
from service.jobs.lifecycle import now
from service.jobs.quota import Quota
from service.logs import configure_logging
from service.settings import Settings
from service.store.api_keys import has_usable_api_key
from service.store.engine import Store
from service.webhooks.dispatcher import Dispatcher
from service.webhooks.hosts import AllowedHosts
from service.webhooks.sender import Sender

log = logging.getLogger("forerun")


def main() -> None:
    """Run the service until it is told to end. Raises SystemExit with status 2 where a setting cannot be used."""
    os.umask(0o077)  # database, checkpoints and logs are for this account alone; a local Ray and its jobs inherit it
    settings = read_settings()
    program = sys.argv[1] if len(sys.argv) > 1 else "forerun"
    configure_logging(settings.log_level, settings.log_format)
    limits = Limits.of(settings, raise_descriptor_limit())
    sender = _sender(settings)
    home = settings.home.absolute()
    with ExitStack() as stack:
        stack.enter_context(only_service_of(home))
        store = stack.enter_context(open_database(settings))
        listener = stack.enter_context(_listen(settings.host, settings.port))
        gate = _gate(settings, store, program)
        # What comes while Ray starts ends this block, and all it holds, in order. So does what comes later: uvicorn
        # raises the signal that ended it once more.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        signal.signal(signal.SIGINT, lambda *_: sys.exit())
        url = f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}"
        lease = stack.enter_context(closing(Lease(store, id_of_service(home), url)))  # given back when Ray has ended
        token_file = home / "ray-token"
        cluster = stack.enter_context(_cluster(settings, token_file))
        controller = _controller(settings, store, cluster, lease, url)
        services = Services(
            store=store,
            fleet=controller,
            data_dir=settings.data_dir.absolute(),
            data_is_local=settings.ray_address is None,
            hosts=settings.hosts(),
            storage_dir=settings.jobs(),
            gate=gate,
            max_event_streams=limits.event_streams,
            min_free_bytes=settings.min_free_mb * 2**20,
            sender=sender,
            computing=Computing(seconds=settings.compute_seconds, processes=settings.compute_processes),
        )
        facts = {
            "pid": os.getpid(),
            "url": url,
            "docs_url": f"{url}/docs",
            "dashboard_url": cluster.dashboard_url,
            "dashboard_token_file": str(token_file) if settings.ray_address is None else None,
        }
        app = create_app(services)
        if settings.otlp_endpoint is not None:
            stack.enter_context(_traced(app, store, settings.otlp_endpoint))
        server = Server(
            app,
            settings.log_level.lower(),
            ready=lambda: stack.enter_context(_file(home / "service.json", json.dumps(facts))),
            limits=limits,
        )
        dispatcher = Dispatcher(store, sender, leads=lambda: lease.leads)
        dispatcher.start()
        stack.callback(dispatcher.stop)
        controller.start()
        if settings.ray_address is None:
            stack.callback(controller.release)
        stack.callback(controller.stop)
        print(_banner(facts, program), flush=True)
        collect_less_garbage()
        server.run(sockets=[listener])


@contextmanager
def _cluster(settings: Settings, token_file: Path) -> Iterator[RayCluster]:
    """The cluster that the settings name; else a Ray head that lives as long as the service, its token in a file."""
    if settings.ray_address is not None:
        token = settings.ray_token.get_secret_value() if settings.ray_token else None
        yield RayCluster(settings.ray_address, token, settings.ray_python)
        return
    log.info("starting a local Ray head")
    with EmbeddedHead(settings.ray_num_cpus, settings.ray_num_gpus) as head:
        cluster = OwnCluster(head)
        with _file(token_file, head.token):
            yield cluster


def _controller(settings: Settings, store: Store, cluster: RayCluster, lease: Lease, url: str) -> Controller:
    """The controller, which tells jobs where the API, the data and the folder of their files are."""
    environment = {
        "FORERUN_API_URL": settings.api_url or url,
        "FORERUN_DATA_DIR": str(settings.data_dir.absolute()),
        "FORERUN_STORAGE_DIR": str(settings.jobs()),
    }
    if settings.log_format is not None:
        environment["FORERUN_LOG_FORMAT"] = settings.log_format
    housekeeper = Housekeeper(
        store,
        settings.jobs(),
        keep_checkpoints_days=settings.keep_checkpoints_days,
        keep_logs_days=settings.keep_logs_days,
    )
    return Controller(
        store,
        cluster,
        environment,
        lease=lease,
        max_attempts=settings.max_attempts,
        poll_seconds=settings.poll_seconds,
        hang_seconds=settings.hang_seconds,
        quota=Quota(settings.owner_running_jobs, settings.owner_gpu_seconds),
        housekeeper=housekeeper,
    )


def _gate(settings: Settings, store: Store, program: str) -> Gate:
    """Who is let in. Exits where that would be everybody, from beyond this machine, and nobody has said so."""
    auth = settings.auth
    if auth == "auto" and not _is_loopback(settings.host):
        with store.read() as session:
            if not has_usable_api_key(session, now()):
                why = (
                    "whoever reaches it could do everything, as there is no API key; make one with "
                    f"`{program} keys create OWNER --scope admin --local`, or let everybody in with FORERUN_AUTH=open"
                )
                raise unusable("host", settings.host, why)
        auth = "keys"
    return Gate(auth, settings.key_rate, settings.key_event_streams)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _traced(app: FastAPI, store: Store, endpoint: str) -> AbstractContextManager[None]:
    """The block in which requests are traced. Exits where the extra for it is not installed."""
    try:
        from api.tracing import traced
    except ImportError as error:
        why = f"it takes the extra tracing ({error}); install forerun[server,tracing]"
        raise unusable("otlp_endpoint", endpoint, why) from None
    return traced(app, store, endpoint)


def _sender(settings: Settings) -> Sender:
    """The sender of messages to webhooks. Exits where the hosts that they may lead to are none."""
    try:
        return Sender(AllowedHosts.parse(settings.webhook_hosts))
    except ValueError as error:
        raise unusable("webhook_hosts", ",".join(settings.webhook_hosts), error) from None


def _banner(facts: dict[str, object], program: str) -> str:
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
Submit a job:   {program} --url {facts["url"]} submit examples/digits.yaml --watch
Stop:           Ctrl-C
"""


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket on the port, or on the next free one."""
    for candidate in range(port, min(port + 100, 2**16)):
        try:
            return listening_socket(host, candidate)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise unusable("host", host, error) from None
    raise SystemExit(f"forerun: no free port from {port} on; set FORERUN_PORT")


def _reachable(host: str) -> str:
    """The host as a URL on this machine names it."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


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
