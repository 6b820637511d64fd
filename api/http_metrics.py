"""HTTP requests as Prometheus metrics, by the template of their route: paths of clients would be labels without end."""

from collections.abc import Callable

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# A stream lasts as long as its job, which is no latency; scrapes are not what a scrape is about.
NOT_COUNTED = [r"^/v1/jobs/\{job_id\}/events$", r"^/metrics$"]
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def count_requests(app: FastAPI) -> CollectorRegistry:
    """Have the requests of an application counted and timed, and return the registry where."""
    registry = CollectorRegistry()
    counted = Instrumentator(excluded_handlers=NOT_COUNTED, registry=registry)
    counted.add(_instrumentation(registry)).instrument(app)
    return registry


def _instrumentation(registry: CollectorRegistry) -> Callable[[Info], None]:
    labels = ["method", "route", "status"]
    requests = Counter("forerun_http_requests", "HTTP requests that were answered.", labels, registry=registry)
    seconds = Histogram(
        "forerun_http_request_seconds",
        "Seconds from a request's header to the end of its answer.",
        labels[:2],
        buckets=BUCKETS,
        registry=registry,
    )

    def count(info: Info) -> None:
        method = info.method if info.method in METHODS else "other"  # HTTP has as many as a client invents
        requests.labels(method, info.modified_handler, info.modified_status).inc()
        seconds.labels(method, info.modified_handler).observe(info.modified_duration)

    return count
