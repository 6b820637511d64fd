"""Webhooks of a real service, which is killed in between."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.builders import PAPER, nested
from tests.e2e.service import running_service
from tests.processes import wait_until
from tests.receiver import receiving

SPEC: dict[str, Any] = nested(model="lenet5", dataset="digits", epochs=500, **PAPER)


@pytest.mark.long
def test_what_was_not_taken_comes_again_from_the_service_that_is_started_after_a_kill(tmp_path: Path) -> None:
    with receiving(statuses=[503]) as receiver:
        environment = {"FORERUN_WEBHOOK_HOSTS": f"http://127.0.0.1:{receiver.port}", "FORERUN_RAY_NUM_CPUS": "1"}
        with running_service(tmp_path / "home", **environment) as service, service.client as client:
            hook = client.create_webhook(receiver.url, ["job.queued", "job.cancelled"])
            assert client.test_webhook(hook.id).failure == "it answered with 503"
            receiver.statuses = [503]
            job = client.submit(SPEC)
            wait_until(lambda: len(receiver.requests) == 2, 60)
            wait_until(lambda: client.webhooks()[0].failures == 1, 60)
            service.stop(signal.SIGKILL)
        with running_service(tmp_path / "home", **environment) as service, service.client as client:
            client.cancel(job.id)
            assert client.wait(job.id).state == "cancelled"
            wait_until(lambda: len(receiver.requests) >= 4, 60)
            wait_until(lambda: client.webhooks()[0].failures == 0, 60)
        _, *of_job = receiver.messages(hook.secret)
        assert [message["type"] for message in of_job] == ["job.queued", "job.queued", "job.cancelled"]
        assert receiver.ids[1] == receiver.ids[2] == f"event-{job.id}-1"
        log = (tmp_path / "home" / "service.log").read_text()
        assert hook.secret not in log
        assert "it answered with 503; it is tried again" in log
