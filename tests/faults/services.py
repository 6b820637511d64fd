"""Real: services with HTTP server and controller in processes of their own, a Ray head that outlives them, and played
jobs on it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from random import Random

import httpx

from forerun.client import Client
from service.wire.states import JobState
from tests.builders import spec_document
from tests.e2e.service import Service
from tests.faults import played
from tests.faults.bench import Bench
from tests.faults.invariants import Expected, Kind, Violation
from tests.faults.processes import PATIENCE_S, Site, Watch, free_port, kill

S = JobState
EPOCHS = 4
STATES = (
    S.QUEUED,
    S.SUBMITTING,
    S.RUNNING,
    S.PAUSING,
    S.PAUSED,
    S.RECOVERING,
    S.CANCELLING,
    S.SUCCEEDED,
    S.CANCELLED,
)
DOCUMENT = spec_document(epochs=EPOCHS)
UNDISTURBED = Expected(results=played.undisturbed(EPOCHS), attempts=1)


def killed(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """`kill -9` of the service while a job is in one of its states, in turn; then a new start. Its port stays, as that
    of a service in production does: workers report to it."""
    port = free_port()
    with bench.scratch() as folder, bench.sqlite() as url, Site(bench, url, folder) as site:
        watch = Watch(site.store, site.ray.overview, folder / "jobs")
        with ExitStack() as services:
            service = services.enter_context(site.service(port=port))
            for number in numbers:
                state = STATES[number % len(STATES)]
                with Client(service.url) as client:
                    job_id = client.submit(DOCUMENT).id
                    watch.accepted[job_id] = UNDISTURBED
                    _bring(watch, client, job_id, state, site)
                    kill(service)
                service = services.enter_context(site.service(port=port))
                if state in (S.PAUSING, S.PAUSED):
                    _resume(watch, service, job_id)
                yield watch.settle()


def _resume(watch: Watch, service: Service, job_id: str) -> None:
    """Let the job go on when it is paused, unless its last epoch was on its way."""
    watch.until(lambda: watch.state(job_id) in (S.PAUSED, S.SUCCEEDED))
    if watch.state(job_id) is S.PAUSED:
        with Client(service.url) as client:
            client.resume(job_id)


def _bring(watch: Watch, client: Client, job_id: str, state: JobState, site: Site) -> None:
    """Bring the job into the state, or as near as it was seen: the next state may follow in a moment."""
    if state is S.QUEUED:
        return
    if state is S.CANCELLED:
        client.cancel(job_id)
    runs = (S.SUBMITTING, S.RUNNING, S.SUCCEEDED)
    if state is S.SUBMITTING:
        watch.until(lambda: watch.state(job_id) in runs)
        return
    if state is S.SUCCEEDED:
        watch.until(lambda: watch.state(job_id) is S.SUCCEEDED)
        return
    if state is not S.CANCELLED:
        watch.until(lambda: watch.state(job_id) in (S.RUNNING, S.SUCCEEDED))
    match state:
        case S.PAUSING:
            client.pause(job_id)
            watch.accepted[job_id] = Expected(results=UNDISTURBED.results)
        case S.PAUSED:
            client.pause(job_id)
            watch.until(lambda: watch.state(job_id) in (S.PAUSED, S.SUCCEEDED))
            watch.accepted[job_id] = Expected(results=UNDISTURBED.results)
        case S.RECOVERING:  # its own process ends, which counts against it
            site.ray.stop(f"{job_id}-a1")
            watch.until(lambda: watch.state(job_id) is not S.RUNNING)
            watch.accepted[job_id] = Expected(results=UNDISTURBED.results, own_losses=1)
        case S.CANCELLING | S.CANCELLED:
            if state is S.CANCELLING:
                client.cancel(job_id)
            watch.accepted[job_id] = Expected(state=S.CANCELLED)


def one_of_two_killed(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """Of two services on one PostgreSQL the one that leads is killed, with jobs that run, and started again when the
    other leads. Jobs are submitted to both."""
    ports = {"one": free_port(), "two": free_port() + 1}
    with bench.scratch() as folder, bench.on_postgres() as url, Site(bench, url, folder) as site, ExitStack() as stack:
        watch = Watch(site.store, site.ray.overview, folder / "jobs")
        services = {name: stack.enter_context(site.service(name, port)) for name, port in ports.items()}
        for _ in numbers:
            watch.until(lambda: _leader(services) is not None, what="a service that leads")
            leader = _leader(services) or "one"
            for service in services.values():
                with Client(service.url) as client:
                    watch.accepted[client.submit(DOCUMENT).id] = UNDISTURBED
            for job_id in list(watch.accepted)[: draw.randrange(3)]:
                watch.until(lambda one=job_id: watch.state(one) not in (S.QUEUED, S.SUBMITTING))
            kill(services[leader])
            [other] = services.keys() - {leader}
            watch.until(lambda one=services[other]: _leads(one), PATIENCE_S, "the other to lead")
            services[leader] = stack.enter_context(site.service(leader, ports[leader]))
            yield watch.settle()


def _leader(services: dict[str, Service]) -> str | None:
    """The service that says that it leads; two of them would be one too many."""
    leaders = [name for name, service in services.items() if _leads(service)]
    assert len(leaders) <= 1, f"{Kind.DOUBLED}: both lead"
    return leaders[0] if leaders else None


def _leads(service: Service) -> bool:
    try:
        return bool(httpx.get(f"{service.url}/readyz", timeout=10.0, trust_env=False).json()["leadership"]["leads"])
    except httpx.HTTPError:
        return False
