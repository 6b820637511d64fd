import json

import httpx
import pytest

from tests.unit.forerun.cli.command_line import Forerun
from tests.unit.forerun.service_double import answer, problem

WEBHOOK = {
    "id": "hook-1",
    "url": "https://hooks.example.com/x",
    "events": ["epoch", "job.failed"],
    "created_at": "2026-01-01T00:00:00Z",
    "delivered_at": None,
    "failures": 0,
    "last_failure": None,
    "next_try_at": None,
    "disabled_at": None,
}


def test_create_prints_the_secret_alone(forerun: Forerun) -> None:
    words = ["webhooks", "create", "https://hooks.example.com/x", "--event", "epoch", "--event", "job.failed"]
    result = forerun(*words, answers=[answer(WEBHOOK | {"secret": "whsec_abc"}, 201)])
    assert (result.exit_code, result.stdout) == (0, "whsec_abc\n")
    assert "forerun webhooks test hook-1" in result.stderr
    assert json.loads(forerun.script.requests[0].content) == {
        "url": "https://hooks.example.com/x",
        "events": ["epoch", "job.failed"],
    }


def test_without_events_it_is_told_of_the_ends_of_jobs(forerun: Forerun) -> None:
    forerun("webhooks", "create", "https://h/x", answers=[answer(WEBHOOK | {"secret": "whsec_abc"}, 201)])
    assert json.loads(forerun.script.requests[0].content)["events"] == ["job.succeeded", "job.failed", "job.cancelled"]


def test_a_refusal_names_the_field(forerun: Forerun) -> None:
    errors = [{"field": "url", "value": "https://h/x", "message": "webhooks are switched off here"}]
    refusal = problem(422, "invalid_input", "Invalid input", "url: …", errors=errors)
    result = forerun("webhooks", "create", "https://h/x", answers=[refusal])
    assert result.exit_code == 1
    assert 'url = "https://h/x": webhooks are switched off here' in result.stderr


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "nothing sent yet"),
        ({"delivered_at": "2026-01-01T00:00:00Z"}, "well"),
        ({"failures": 3, "last_failure": "it answered with 500"}, "failed 3 times: it answered with 500"),
        (
            {"disabled_at": "2026-01-01T00:00:00Z", "last_failure": "it answered with 410"},
            "disabled: it answered with 410",
        ),
    ],
)
def test_list(forerun: Forerun, changes: dict[str, object], state: str) -> None:
    result = forerun("webhooks", "list", answers=[answer({"items": [WEBHOOK | changes]})])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split(maxsplit=3) == [
        "hook-1",
        "https://hooks.example.com/x",
        "epoch",
        f"job.failed  {state}",
    ]


def test_delete(forerun: Forerun) -> None:
    assert forerun("webhooks", "delete", "hook-1", answers=[httpx.Response(204)]).exit_code == 0
    assert forerun.script.asked == ["DELETE /v1/webhooks/hook-1"]


@pytest.mark.parametrize(
    ("document", "exit_code", "line"),
    [
        ({"delivered": True, "status": 204, "failure": None}, 0, "delivered (204)"),
        (
            {"delivered": False, "status": None, "failure": "no answer within 10 s"},
            1,
            "not delivered: no answer within 10 s",
        ),
    ],
)
def test_test(forerun: Forerun, document: dict[str, object], exit_code: int, line: str) -> None:
    result = forerun("webhooks", "test", "hook-1", answers=[answer(document)])
    assert (result.exit_code, result.stdout) == (exit_code, f"{line}\n")
