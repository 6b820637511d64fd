"""What the service logs of a job's life: whose request and which attempt it was, and no secret."""

import io
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from service.cluster.controller import Controller
from service.cluster.fake import FakeCluster
from service.cluster.lease import Lease
from service.errors import ClusterUnreachable
from service.logs import Style
from service.store.engine import Store
from tests.builders import JSON, Worker, epoch_record, submit
from tests.logging_output import log_output

pytest_plugins = ["tests.databases"]


@contextmanager
def events() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    with log_output("json") as output:
        yield found
    found += map(json.loads, output.getvalue().splitlines())


def test_ids_of_requests(client: httpx.Client) -> None:
    for given, taken in [("req-1.A_b", True), (64 * "x", True), (65 * "x", False), ("a b", False), ("{}", False)]:
        answer = client.post("/v1/jobs", content="{", headers=JSON | {"X-Request-ID": given})
        request_id = answer.headers["X-Request-ID"]
        assert (request_id == given) == taken
        assert answer.json()["request_id"] == request_id


def test_events_of_a_request_tell_of_it_and_of_its_job(client: httpx.Client) -> None:
    with events() as found:
        job_id = submit(client)
        client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON | {"X-Request-ID": "mine"})
    queued, cancelled = found
    assert (queued["event"], queued["job"], len(queued["request_id"])) == ("queued", job_id, 32)
    assert (cancelled["event"], cancelled["job"], cancelled["request_id"]) == ("cancelled", job_id, "mine")


def test_events_of_the_controller_tell_of_job_and_attempt(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client)
    with events() as found:
        Controller(sqlite_store, FakeCluster(), {}).run_pass()
    assert [(event["event"], event["job"], event["attempt"]) for event in found if "job" in event] == [
        ("submitting", job_id, "1"),
        (f"submitting {job_id}-a1", job_id, "1"),
    ]


class Talkative(FakeCluster):
    """A cluster that says all that it is given, in its log and in its first error, as Ray may."""

    def __init__(self) -> None:
        super().__init__()
        self.tickets: list[str] = []

    def submit(self, submission_id: str, job_id: str, env: Mapping[str, str]) -> None:
        self.tickets.append(env["FORERUN_TICKET"])
        logging.getLogger("ray.job").debug("runtime_env %s", {"env_vars": dict(env)})
        if len(self.tickets) == 1:
            raise ClusterUnreachable(f"cannot start {json.dumps(dict(env))}")
        super().submit(submission_id, job_id, env)


def passes(controller: Controller, stream: io.StringIO, until: str) -> None:
    """Let the controller's own loop run until it has logged something."""
    controller.start()
    while until not in stream.getvalue() and controller.trouble is None:
        controller.wake()
    controller.stop()


@pytest.mark.parametrize("style", ["json", "text"])
def test_no_secret_of_a_jobs_whole_life_is_logged(client: httpx.Client, sqlite_store: Store, style: Style) -> None:
    cluster = Talkative()
    with log_output(style, "DEBUG") as stream, closing(Lease(sqlite_store)) as lease:
        controller = Controller(sqlite_store, cluster, {"FORERUN_API_URL": "http://api"}, lease=lease)
        job_id = submit(client, epochs=1)
        passes(controller, stream, "cannot start")
        with patch("service.cluster.controller.SUBMIT_GRACE_S", -1.0):
            controller.run_pass()
        first, ticket = cluster.tickets
        worker = Worker(client, job_id)
        assert worker.exchange(first).status_code == 403
        worker.token = token = worker.exchange(ticket).json()["report_token"]
        assert worker.exchange(ticket).status_code == 403
        assert worker.report(epoch_record(2)).status_code == 409
        told_by_database = RuntimeError(f"INSERT … [parameters: {{'report_token': '{token}'}}]")
        with patch("service.jobs.reports.get_trial", side_effect=told_by_database):
            assert worker.report(epoch_record(1)).status_code == 500
        assert worker.report(epoch_record(1)).status_code == 200
        assert worker.finish().status_code == 204
    told = stream.getvalue()
    assert told.count("[redacted]") >= 4
    assert "RuntimeError: INSERT" in told
    assert "succeeded" in told
    for secret in (first, ticket, token):
        assert secret not in told
