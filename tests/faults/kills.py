"""Real: a service with a Ray head of its own, and real trainings on it, whose processes are killed or stopped.

One job takes several injections, each once the attempt before has recorded a new epoch; then it ends undisturbed, and
its epochs are those of a training that nothing has happened to, to the last bit.
"""

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import torch

from forerun.client import Client
from service.cluster.ray_jobs import RayCluster
from service.spec.data import NamedDataset
from service.spec.job import JobSpec
from service.store.engine import Store
from service.store.epochs import epochs_of
from service.wire.states import TERMINAL
from tests.e2e.service import Service
from tests.faults.bench import Bench
from tests.faults.invariants import Expected, Result, Violation, result_of
from tests.faults.processes import Site, Watch, processes_of
from workers.datasets.load import load_data
from workers.engine.groups import Workers
from workers.records_file import RecordsFile
from workers.trainings import train_job

EPOCHS = 60
AT_ONCE = 6  # injections that a job takes at most
SPEC: dict[str, Any] = {
    "model": "lenet5",
    "dataset": "digits",
    "epochs": EPOCHS,
    "workers": 1,
    "lr_set": {"learning_rates": [0.1, 0.05]},
}
COMPONENTS = ("gcs_server", "dashboard/dashboard.py", "raylet/raylet", "service.cluster.local_head")
HANGS = ("RayTrainWorker", "TrainController", "workers.job")

Do = Callable[[Service, int], None]  # to the service, the injection of that number


@cache
def undisturbed(folder: Path, workers: int = 1) -> Sequence[Result]:
    """The results of SPEC, trained without a service."""
    spec = JobSpec.model_validate(SPEC)
    device = torch.device("cpu")
    records = train_job(
        spec,
        load_data(NamedDataset(name="digits"), Path(), device),
        Workers(device),
        points=(),
        trials=(),
        attempt=1,
        folder=folder,
        recorder=RecordsFile(folder),
    )
    return [result_of(record) for record in records]


def worker_killed(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """`kill -9` of the worker that trains, somewhere in an epoch. That counts against the job, and each new epoch makes
    up for it."""
    with _own_head(bench) as (service, watch):
        yield from _injected(bench, service, watch, numbers, lambda s, _: _signal(s, "RayTrainWorker"), own=True)


def stopped(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """SIGSTOP of the worker, of Ray Train's controller, of the driver, in turn: processes that are there, and do
    nothing more."""

    def stop(service: Service, number: int) -> None:
        _signal(service, HANGS[number % len(HANGS)], signal.SIGSTOP)

    with _own_head(bench, FORERUN_HANG_SECONDS="60") as (service, watch):
        yield from _injected(bench, service, watch, numbers, stop, own=True)


def head_killed(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """`kill -9` of a part of the service's own Ray head: the GCS, the dashboard, the raylet, what watches over them."""

    def kill(service: Service, number: int) -> None:
        _signal(service, COMPONENTS[number % len(COMPONENTS)])

    with _own_head(bench, FORERUN_MAX_ATTEMPTS="1") as (service, watch):
        yield from _injected(bench, service, watch, numbers, kill, own=False)


def node_lost(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """A node of the cluster goes with all that runs on it: the one worker of a job trains there, for the head has no
    room for it. Another node takes its place."""
    with (
        bench.scratch() as folder,
        bench.sqlite() as url,
        Site(bench, url, folder, real=True, cpus=1) as site,
        site.service(FORERUN_MAX_ATTEMPTS="1") as service,
        ExitStack() as stack,
    ):
        watch = Watch(site.store, site.ray.overview, folder / "jobs")
        node = stack.enter_context(_node(site))
        watch.until(lambda: _cpus_seen(service) == 2.0, what="the node")

        def lose(service: Service, number: int) -> None:
            nonlocal node
            _kill_all(node)
            node = stack.enter_context(_node(site))

        yield from _injected(bench, service, watch, numbers, lose, own=False, workers=2)


# --- shared ------------------------------------------------------------------------------------------


def _injected(
    bench: Bench,
    service: Service,
    watch: Watch,
    numbers: Sequence[int],
    do: Do,
    *,
    own: bool,
    workers: int = 1,
) -> Iterator[Sequence[Violation]]:
    """Do it again and again to jobs of the service; where they count as the jobs' own losses, `own`."""
    expected = list(undisturbed(bench.keep("undisturbed"))) if workers == 1 else None
    left = deque(numbers)
    while left:
        with Client(service.url) as client:
            job_id = client.submit(SPEC | {"workers": workers}).id
        watch.accepted[job_id] = Expected(results=expected)
        taken = 0
        while left and taken < AT_ONCE and _trains(watch, job_id, taken + 1):
            if taken:
                yield []
            do(service, left.popleft())
            taken += 1
        if not taken:
            left.popleft()
        watch.accepted[job_id] = Expected(results=expected, own_losses=taken if own else 0)
        yield watch.settle()


def _trains(watch: Watch, job_id: str, attempt: int) -> bool:
    """Wait for an epoch of that attempt, or a later one; whether it came, and the job has not ended: where its driver
    is stopped its workers may train to the end."""
    watch.until(
        lambda: has_an_epoch_of(watch, job_id, attempt) or watch.state(job_id) in TERMINAL, what=f"attempt {attempt}"
    )
    return has_an_epoch_of(watch, job_id, attempt) and watch.state(job_id) not in TERMINAL


def has_an_epoch_of(watch: Watch, job_id: str, attempt: int) -> bool:
    """Whether that attempt, or a later one, has recorded an epoch."""
    with watch.store.read() as session:
        return any(epoch.attempt >= attempt for epoch in epochs_of(session, job_id))


@contextmanager
def _own_head(bench: Bench, **environment: str) -> Iterator[tuple[Service, Watch]]:
    with bench.scratch() as folder, bench.service(folder / "home", FORERUN_RAY_NUM_CPUS="2", **environment) as service:
        store = Store(f"sqlite:///{service.home / 'forerun.db'}")
        ray = RayCluster(service.dashboard_url, service.token, sys.executable)
        yield service, Watch(store, ray.overview, service.home / "jobs")
        store.close()


def _signal(service: Service, words: str, number: int = signal.SIGKILL) -> None:
    """Send a signal to the one process below the service with these words in its command line."""
    found = processes_of(service.process.pid, words)
    assert found, f"no process {words}"
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _cpus_seen(service: Service) -> float | None:
    """The CPUs of the cluster, as the service has last seen it."""
    metrics = httpx.get(f"{service.url}/metrics", timeout=30.0, trust_env=False).text
    found = re.search(r"^forerun_ray_cpus (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else None


@contextmanager
def _node(site: Site) -> Iterator[psutil.Process]:
    """A second node of the site's cluster, with one CPU."""
    command = [sys.executable, "-m", "tests.faults.node", site.head.gcs_address]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": site.head.token}
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = psutil.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        _kill_all(process)


def _kill_all(node: psutil.Process) -> None:
    """End a node and all that runs on it at once."""
    with suppress(psutil.NoSuchProcess):
        family = [*node.children(recursive=True), node]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, 10)
