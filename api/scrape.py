"""What a scrape by Prometheus is answered with: what this process has seen, and what lies in SQL at present.

A scrape never fails, and never waits for long, because the database or Ray is away: a gauge says so, and what cannot be
known is left out.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from api.deps import Fleet
from service import metrics
from service.jobs.quota import owners_who_wait
from service.store.engine import Store
from service.store.standing import Standing, count_jobs
from service.wire.states import JobState

log = logging.getLogger("forerun.api")

KEPT_SECONDS = 5.0  # a count in SQL serves all scrapes of so long
PATIENCE_SECONDS = 3.0  # a database that takes longer is away


@dataclass(frozen=True)
class Counted:
    """What SQL says: how many jobs there are, and whose jobs wait because their owner has as much as one may."""

    standing: Standing
    over_quota: Collection[str]


class Scraper:
    """Counts in SQL for scrapes, in one thread at a time, and writes all metrics as text."""

    def __init__(self, store: Store, fleet: Fleet, http: CollectorRegistry) -> None:
        self._store, self._fleet, self._http = store, fleet, http
        self._count: Future[Counted | None] | None = None
        self._begun = 0.0

    async def scrape(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        try:
            counted = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._latest())), PATIENCE_SECONDS)
        except TimeoutError:
            counted = None
        now = CollectorRegistry()
        now.register(_Present(counted, self._fleet))
        return b"".join(map(generate_latest, (metrics.REGISTRY, self._http, now)))

    def _latest(self) -> "Future[Counted | None]":
        """The count that is under way or new enough; else one that begins now."""
        old = self._count is None or (self._count.done() and time.monotonic() - self._begun > KEPT_SECONDS)
        if self._count is None or old:
            self._count, self._begun = Future(), time.monotonic()
            threading.Thread(target=self._run, args=(self._count,), name="scrape", daemon=True).start()
        return self._count

    def _run(self, count: "Future[Counted | None]") -> None:
        try:
            with self._store.read() as session:
                over_quota = owners_who_wait(session, self._fleet.quota, datetime.now(UTC))
                count.set_result(Counted(count_jobs(session), over_quota.keys()))
        except Exception:  # whatever a database can come up with
            if self._store.trouble is None:  # of an outage the store tells
                log.warning("jobs cannot be counted for a scrape", exc_info=log.isEnabledFor(logging.DEBUG))
            count.set_result(None)


class _Present(Collector):
    """The metrics of what is so at present; without what was counted the database is away."""

    def __init__(self, counted: Counted | None, fleet: Fleet) -> None:
        self._counted, self._leads = counted, fleet.leadership.leads
        self._capacity, self._trouble = fleet.capacity, fleet.trouble

    def collect(self) -> Iterable[Metric]:
        """The families of the metrics, one after another."""
        yield _gauge("forerun_database_up", "Whether the database answers: 1 or 0.", self._counted is not None)
        reachable = self._capacity is not None and self._trouble is None
        yield _gauge("forerun_ray_reachable", "Whether the last pass of the controller went well: 1 or 0.", reachable)
        yield _gauge("forerun_leads", "Whether this service leads, of those on its database: 1 or 0.", self._leads)
        if self._capacity is not None:
            yield _gauge("forerun_ray_cpus", "CPUs of the Ray cluster, as last seen.", self._capacity.cpus)
            yield _gauge("forerun_ray_gpus", "GPUs of the Ray cluster, as last seen.", self._capacity.gpus)
        if self._counted is not None:
            yield from self._of_jobs(self._counted.standing)
        if self._counted is not None and self._leads:  # whoever leads knows the cluster that they wait for
            yield self._waits(self._counted)

    def _of_jobs(self, standing: Standing) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("forerun_jobs", "Jobs, by state.", labels=["state"])
        for state in JobState:
            jobs.add_metric([state], standing.jobs.get(state, 0))
        yield jobs
        yield _gauge("forerun_queue_length", "Jobs that wait for an attempt.", sum(standing.waiting.values()))
        oldest = standing.oldest_queued
        age = 0.0 if oldest is None else max(0.0, (datetime.now(UTC) - oldest).total_seconds())
        yield _gauge("forerun_queue_oldest_seconds", "How long the oldest queued job has waited; 0: none is.", age)

    def _waits(self, counted: Counted) -> Metric:
        """The jobs that wait, by a code for why: Ray cannot be reached, their owner has as much as one may, the cluster
        is too small, or it is busy."""
        waits = {"ray_unreachable": 0, "quota": 0, "too_large": 0, "resources": 0}
        for (owner, workers), count in counted.standing.waiting.items():
            if self._capacity is None or self._trouble is not None:
                waits["ray_unreachable"] += count
            elif owner in counted.over_quota:
                waits["quota"] += count
            else:
                waits["too_large" if workers > self._capacity.workers else "resources"] += count
        family = GaugeMetricFamily("forerun_jobs_waiting", "Jobs that wait for an attempt, by why.", labels=["reason"])
        for reason, count in waits.items():
            family.add_metric([reason], count)
        return family


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=float(value))
