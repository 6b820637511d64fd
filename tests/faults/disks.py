"""Real: the disk with the database and the jobs' files is full while a real training runs, and has room again later.
The disk is a small one in memory, which only root may mount."""

import sys
from collections.abc import Iterator, Sequence
from random import Random

from forerun.client import Client
from service.cluster.ray_jobs import RayCluster
from service.store.engine import Store
from tests.disks import disk, fill
from tests.faults.bench import Bench
from tests.faults.invariants import Expected, Violation
from tests.faults.kills import SPEC, has_an_epoch_of, undisturbed
from tests.faults.processes import Watch

MIB = 64


def full(bench: Bench, numbers: Sequence[int], draw: Random) -> Iterator[Sequence[Violation]]:
    """The disk is full for up to half a minute, from some moment behind the first epoch on; the job waits and goes on,
    and nothing of that is held against it."""
    expected = list(undisturbed(bench.keep("undisturbed")))
    with (
        disk(bench.folder / "disk", MIB) as folder,
        bench.service(folder / "home", FORERUN_RAY_NUM_CPUS="1") as service,
    ):
        store = Store(f"sqlite:///{service.home / 'forerun.db'}")
        ray = RayCluster(service.dashboard_url, service.token, sys.executable)
        watch = Watch(store, ray.overview, service.home / "jobs")
        for _ in numbers:
            with Client(service.url) as client:
                job_id = client.submit(SPEC).id
            watch.accepted[job_id] = Expected(results=expected)
            watch.until(lambda one=job_id: has_an_epoch_of(watch, one, 1), what="the first epoch")
            watch.rest(draw.uniform(0.0, 2.0))
            file = fill(folder)
            watch.rest(draw.uniform(5.0, 30.0))
            file.unlink()
            yield watch.settle()
        store.close()
