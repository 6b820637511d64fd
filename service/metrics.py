"""What this process has seen happen, as Prometheus metrics. What lies in SQL is counted there, at each scrape.

Every label has few values, known beforehand: states, codes, kinds. Nothing that a user wrote is a label.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # a series beside each counter and histogram, which says when this process began to count

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # memory, CPU, open file descriptors
PlatformCollector(registry=REGISTRY)

EPOCH_BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
REPORT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

TRANSITIONS = Counter(
    "forerun_job_transitions", "Jobs that came into a state, by that state.", ["state"], registry=REGISTRY
)
ATTEMPTS_ENDED = Counter(
    "forerun_attempts_ended",
    "Attempts that ended, by how: succeeded, failed, cancelled, paused, lost, or interrupted by the service's stop.",
    ["end"],
    registry=REGISTRY,
)
EPOCH_SECONDS = Histogram(
    "forerun_epoch_seconds",
    "Seconds that recorded epochs took, by phase: warmup, stpt, scheduled.",
    ["phase"],
    buckets=EPOCH_BUCKETS,
    registry=REGISTRY,
)
REPORT_SECONDS = Histogram(
    "forerun_report_seconds",
    "Seconds from a report of a worker to its commit, or refusal, by kind: ticket, epoch, trial, outcome.",
    ["kind"],
    buckets=REPORT_BUCKETS,
    registry=REGISTRY,
)
PASS_SECONDS = Histogram(
    "forerun_controller_pass_seconds",
    "Seconds that passes of the controller took, by result: done, ray_unreachable, error.",
    ["result"],
    buckets=PASS_BUCKETS,
    registry=REGISTRY,
)
WEBHOOK_DELIVERIES = Counter(
    "forerun_webhook_deliveries",
    "Messages to webhooks by what became of them: delivered, failed, or given_up, which disables the webhook.",
    ["result"],
    registry=REGISTRY,
)
DATABASE_OUTAGES = Counter(
    "forerun_database_outages", "Times that the database stopped answering this process.", registry=REGISTRY
)
