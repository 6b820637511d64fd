"""The routes to webhooks."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from fastapi.testclient import TestClient

from api.deps import Services
from service.webhooks.hosts import AllowedHosts
from service.webhooks.sender import Sender
from tests.application import app_over
from tests.builders import JSON
from tests.receiver import Receiver, receiving

pytest_plugins = ["tests.databases"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def http(services: Services, receiver: Receiver) -> Iterator[httpx.Client]:
    sender = Sender(AllowedHosts.parse([f"http://127.0.0.1:{receiver.port}"]))
    with TestClient(app_over(replace(services, sender=sender))) as http:
        yield http


def register(http: httpx.Client, url: str, *events: str) -> httpx.Response:
    return http.post("/v1/webhooks", json={"url": url, "events": events or ["job.failed"]})


def test_its_secret_is_told_once(http: httpx.Client, receiver: Receiver) -> None:
    answer = register(http, receiver.url, "job.succeeded", "epoch", "epoch")
    assert answer.status_code == 201
    made = answer.json()
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made["events"] == ["epoch", "job.succeeded"]
    listed = http.get("/v1/webhooks")
    assert listed.json() == {"items": [made]}
    assert secret not in listed.text


def test_a_url_has_one_webhook(http: httpx.Client, receiver: Receiver) -> None:
    first, second = (register(http, receiver.url, event).json() for event in ("epoch", "trial"))
    assert first["id"] == second["id"]
    assert first["secret"] != second["secret"]
    assert [one["events"] for one in http.get("/v1/webhooks").json()["items"]] == [["trial"]]


def test_where_the_setting_names_no_host_they_are_switched_off(client: httpx.Client) -> None:
    answer = register(client, "https://hooks.example.com/")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "url"
    assert "set FORERUN_WEBHOOK_HOSTS to the names of the hosts" in error["message"]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"url": "https://evil.example/", "events": ["epoch"]}, "url"),
        ({"url": "http://u:p@127.0.0.1/", "events": ["epoch"]}, "url"),
        ({"url": "https://h/\x00", "events": ["epoch"]}, "url"),
        ({"events": ["epoch"]}, "url"),
        ({"url": "https://h/", "events": []}, "events"),
        ({"url": "https://h/", "events": ["job.paid"]}, "events[0]"),
        ({"url": "https://h/", "events": ["epoch"], "secret": "mine"}, "secret"),
    ],
)
def test_what_is_refused(http: httpx.Client, document: dict[str, object], field: str) -> None:
    answer = http.post("/v1/webhooks", json=document)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_test_is_sent_at_once_and_changes_nothing(http: httpx.Client, receiver: Receiver) -> None:
    made = register(http, receiver.url).json()
    answer = http.post(f"/v1/webhooks/{made['id']}/test", headers=JSON)
    assert answer.json() == {"delivered": True, "status": 204, "failure": None}
    (message,) = receiver.messages(made["secret"])
    assert (message["type"], message["data"]) == ("webhook.test", {"webhook_id": made["id"]})
    receiver.statuses = [500]
    answer = http.post(f"/v1/webhooks/{made['id']}/test", headers=JSON)
    assert answer.json() == {"delivered": False, "status": 500, "failure": "it answered with 500"}
    (listed,) = http.get("/v1/webhooks").json()["items"]
    assert (listed["failures"], listed["delivered_at"]) == (0, None)
    assert len(set(receiver.ids)) == 2


def test_deleting_it_twice_is_fine_and_testing_it_then_is_not(http: httpx.Client, receiver: Receiver) -> None:
    made = register(http, receiver.url).json()
    for _ in range(2):
        assert http.delete(f"/v1/webhooks/{made['id']}", headers=JSON).status_code == 204
    assert http.get("/v1/webhooks").json() == {"items": []}
    answer = http.post(f"/v1/webhooks/{made['id']}/test", headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
