"""Metrics for Prometheus: a scrape of the application as Prometheus' own parser reads it."""

import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api import scrape
from api.deps import Services
from service.cluster.base import Capacity
from service.cluster.controller import Leadership
from service.jobs import lifecycle as jobs
from service.jobs.quota import Quota
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.store.standing import Standing
from tests.application import serving
from tests.builders import JSON, Worker, claim, epoch_record, run_to_success, spec_document, submit
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]

Samples = dict[tuple[str, tuple[str, ...]], float]  # by name and the values of its labels, in the order of their names


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "KEPT_SECONDS", 0.0)


def scraped(http: httpx.Client) -> Samples:
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)  # each once, or Prometheus refuses all of it
    assert all(family.documentation for family in families)
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def increase(before: Samples, after: Samples, name: str, *labels: str) -> float:
    """Counters count for the whole process, so for all tests before."""
    return after.get((name, labels), 0.0) - before.get((name, labels), 0.0)


def test_the_life_of_a_job(client: httpx.Client, services: Services) -> None:
    before = scraped(client)
    run_to_success(client, services.store, epochs=3)
    submit(client)
    after = scraped(client)
    assert after["forerun_jobs", ("succeeded",)] == 1
    assert after["forerun_jobs", ("queued",)] == after["forerun_queue_length", ()] == 1
    assert after["forerun_jobs", ("failed",)] == 0
    assert 0 <= after["forerun_queue_oldest_seconds", ()] < 60
    for name, labels, times in [
        ("forerun_job_transitions_total", ("queued",), 2),
        ("forerun_job_transitions_total", ("running",), 1),
        ("forerun_job_transitions_total", ("succeeded",), 1),
        ("forerun_attempts_ended_total", ("succeeded",), 1),
        ("forerun_epoch_seconds_count", ("stpt",), 3),
        ("forerun_epoch_seconds_sum", ("stpt",), 7.5),
        ("forerun_report_seconds_count", ("ticket",), 1),
        ("forerun_report_seconds_count", ("epoch",), 3),
        ("forerun_report_seconds_count", ("outcome",), 1),
    ]:
        assert increase(before, after, name, *labels) == times, name
    assert after["process_open_fds", ()] > 0


def test_a_report_that_is_sent_again_is_one_epoch(client: httpx.Client, services: Services) -> None:
    before = scraped(client)
    submit(client)
    worker = Worker.started(client, claim(services.store))
    for _ in range(3):
        assert worker.report(epoch_record(1)).status_code == 200
    after = scraped(client)
    assert increase(before, after, "forerun_epoch_seconds_count", "stpt") == 1
    assert increase(before, after, "forerun_report_seconds_count", "epoch") == 3


def test_why_jobs_wait(client: httpx.Client, services: Services, fleet: FakeFleet) -> None:
    alice = services.store.of_owner("alice", all_jobs=False)
    submit_job(alice, JobSpec.model_validate(spec_document()))
    claim(services.store)
    submit(client)
    submit(client, workers=2)

    def waits() -> dict[str, float]:
        found = scraped(client)
        return {labels[0]: n for (name, labels), n in found.items() if name == "forerun_jobs_waiting" and n > 0}

    assert waits() == {"ray_unreachable": 2}  # Ray has not answered yet
    fleet.capacity = Capacity(cpus=1, gpus=0)
    assert waits() == {"resources": 1, "too_large": 1}
    submit_job(alice, JobSpec.model_validate(spec_document()))
    assert waits() == {"resources": 2, "too_large": 1}
    fleet.quota = Quota(running_jobs=1)
    assert waits() == {"resources": 1, "quota": 1, "too_large": 1}
    fleet.trouble = "no answer"
    assert waits() == {"ray_unreachable": 3}
    fleet.leadership = Leadership(leads=False, url=None)
    assert waits() == {}  # who leads knows


def test_an_attempt_ends_once(client: httpx.Client, services: Services) -> None:
    before = scraped(client)
    job_id = submit(client)
    claim(services.store)
    jobs.attempt_lost(services.store, job_id, 1, "node died", max_attempts=3)
    jobs.cancel(services.store, job_id)
    jobs.confirm_cancelled(services.store, job_id)
    after = scraped(client)
    ends = ("succeeded", "failed", "cancelled", "paused", "lost", "interrupted")
    ended = {end: increase(before, after, "forerun_attempts_ended_total", end) for end in ends}
    assert ended == dict.fromkeys(ends, 0) | {"lost": 1}


def test_ray_by_gauges(client: httpx.Client, fleet: FakeFleet) -> None:
    found = scraped(client)
    assert found["forerun_ray_reachable", ()] == 0
    assert ("forerun_ray_cpus", ()) not in found
    fleet.capacity = Capacity(cpus=8, gpus=2)
    found = scraped(client)
    assert [found[f"forerun_ray_{name}", ()] for name in ("reachable", "cpus", "gpus")] == [1, 8, 2]
    fleet.trouble = "no answer"
    assert scraped(client)["forerun_ray_reachable", ()] == 0


def test_a_database_that_is_gone_is_a_gauge(client: httpx.Client, services: Services) -> None:
    assert scraped(client)["forerun_database_up", ()] == 1
    with services.store.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO lost")
        connection.commit()
    found = scraped(client)
    assert found["forerun_database_up", ()] == 0
    assert not [name for name, _ in found if name in ("forerun_jobs", "forerun_queue_length")]  # nothing stale


def test_a_database_that_does_not_answer_is_waited_for_once_and_not_for_long(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Future[scrape.Counted | None]] = []
    monkeypatch.setattr(scrape, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(scrape, "KEPT_SECONDS", 3600.0)
    monkeypatch.setattr(scrape.Scraper, "_run", lambda self, count: asked.append(count))
    began = time.monotonic()
    assert [scraped(client)["forerun_database_up", ()] for _ in range(3)] == [0, 0, 0]
    assert time.monotonic() - began < 5
    (count,) = asked  # no thread a scrape, while the first one hangs
    count.set_result(scrape.Counted(Standing({}, {}, datetime.now(UTC) - timedelta(minutes=2)), ()))
    found = scraped(client)
    assert found["forerun_database_up", ()] == 1
    assert 120 <= found["forerun_queue_oldest_seconds", ()] < 180


def test_a_count_is_kept_for_a_while(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "KEPT_SECONDS", 3600.0)
    assert scraped(client)["forerun_queue_length", ()] == 0
    submit(client)
    assert scraped(client)["forerun_queue_length", ()] == 0


def test_requests_by_the_template_of_their_route(client: httpx.Client, services: Services) -> None:
    before = scraped(client)
    job_id = run_to_success(client, services.store)
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs/none", "/no/such/path", "/another", f"/v1/jobs/{job_id}/events"):
        client.get(path)
    client.request("BREW", "/v1/jobs", headers=JSON)
    client.request("STIR", "/v1/jobs", headers=JSON)
    after = scraped(client)
    for labels, times in {
        ("GET", "/v1/jobs/{job_id}", "2xx"): 1,
        ("GET", "/v1/jobs/{job_id}", "4xx"): 1,
        ("GET", "none", "4xx"): 2,
        ("other", "/v1/jobs", "4xx"): 2,
        ("POST", "/v1/jobs", "2xx"): 1,
    }.items():
        assert increase(before, after, "forerun_http_requests_total", *labels) == times, labels
    routes = {labels[1] for name, labels in after if name == "forerun_http_requests_total"}
    assert not {route for route in routes if job_id in route or route.endswith("/events") or route == "/metrics"}


def test_nothing_that_a_user_wrote_is_a_label(client: httpx.Client, services: Services) -> None:
    run_to_success(client, services.store, name="my-own-name")
    submit(client, name="my-own-name")
    assert "my-own-name" not in client.get("/metrics").text


def test_over_http(services: Services) -> None:
    with serving(services) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        submit(http)
        assert scraped(http)["forerun_queue_length", ()] == 1


def test_every_metric_is_documented(client: httpx.Client, fleet: FakeFleet) -> None:
    fleet.capacity = Capacity(cpus=1, gpus=0)
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    of_ours = [family.name for family in text_string_to_metric_families(client.get("/metrics").text)]
    of_ours = [name for name in of_ours if name.startswith("forerun_")]
    assert len(of_ours) == 18
    assert [name for name in of_ours if f"`{name}`" not in text and f"`{name}_total`" not in text] == []
