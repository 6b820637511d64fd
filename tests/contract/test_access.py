"""API keys: who may do what, on both databases. Which routes there are is read from the OpenAPI document: a new one is
tested by itself."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from api import translate
from api.deps import COOKIE, Services, scope_needed
from api.gate import Gate
from service.access import keys
from service.errors import TooManyRequests
from service.jobs.lifecycle import cancel
from service.store.api_keys import find_api_key, list_api_keys
from service.store.engine import Store
from service.store.events import events_after
from service.wire.answers import Scope
from tests.application import app_over, serving
from tests.builders import run_to_success, spec_document, submit
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]

OPEN = {"GET /healthz", "GET /readyz"}
FOR_ADMINS = {
    *("GET /v1/keys", "POST /v1/keys", "DELETE /v1/keys/{key_id}"),
    *("GET /v1/webhooks", "POST /v1/webhooks", "DELETE /v1/webhooks/{webhook_id}"),
    "POST /v1/webhooks/{webhook_id}/test",
}
FOR_READERS = {"POST /v1/plan", "POST /v1/session", "DELETE /v1/session"}  # beside all that is a GET
QUERIES = {
    "/v1/recommendation": {"model": "lenet5", "dataset": "digits"},
    "/v1/study": {"experiment": "alices"},
    "/v1/jobs/{job_id}/selector-replay": {"selector": "greedy"},
}
JSON = {"Content-Type": "application/json"}
As = Callable[..., httpx.Client]


@pytest.fixture
def services(store: Store, fleet: FakeFleet, tmp_path: Path) -> Services:
    hosts = frozenset({"testserver"})
    return Services(store, fleet, tmp_path / "data", data_is_local=True, hosts=hosts, storage_dir=tmp_path / "jobs")


@pytest.fixture
def as_(client: httpx.Client) -> As:
    """The client with an API key, or with what stands in its place."""

    def with_key(key: str | None) -> httpx.Client:
        client.headers.pop("Authorization", None)
        if key is not None:
            client.headers["Authorization"] = f"Bearer {key}"
        return client

    return with_key


def key(store: Store, owner: str = "alice", scope: Scope = "submit", **more: Any) -> str:
    return keys.create_key(store, owner, scope=scope, **more)[1]


def forget(client: httpx.Client) -> None:
    """Let the service ask SQL again, as it does after a second."""
    client.app.state.services.gate.forget()  # type: ignore[attr-defined]


def operations(client: httpx.Client) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").raise_for_status().json()["paths"]
    return [(method.upper(), path) for path, item in paths.items() for method in item]


def call(client: httpx.Client, method: str, path: str, job_id: str) -> httpx.Response:
    body = {"POST": {"json": spec_document()}}.get(method, {})
    url = path.format(job_id=job_id, epoch=1, key_id="0" * 12, webhook_id="hook-0")
    return client.request(method, url, params=QUERIES.get(path), headers={"Content-Type": "application/json"}, **body)


# --- every route ------------------------------------------------------------------------------------------


def refusals(client: httpx.Client, job_id: str) -> dict[str, tuple[int, str]]:
    """How every route that is not open to all answers."""
    found = {}
    for method, path in operations(client):
        if f"{method} {path}" not in OPEN:
            response = call(client, method, path, job_id)
            assert response.headers["Content-Type"] == "application/problem+json", (method, path, response.text)
            found[f"{method} {path}"] = (response.status_code, response.json()["code"])
    assert len(found) > 25
    return found


def test_no_route_is_reached_without_a_valid_key(client: httpx.Client, store: Store, as_: As) -> None:
    job_id = submit(client)  # open as yet
    forget(client)
    expired = key(store, expires_at=datetime.now(UTC) + timedelta(hours=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "now", lambda: datetime.now(UTC) + timedelta(hours=2))
        assert set(refusals(as_(expired), job_id).values()) == {(401, "not_authenticated")}
    revoked = key(store, scope="admin")
    keys.revoke_key(store, revoked.split("_")[1])
    other = key(store)
    for wrong in (None, "", "x", "frn_", f"frn_{12 * '0'}_{43 * 'x'}", f"{other[:-1]}!", other[:-1], revoked):
        assert set(refusals(as_(wrong), job_id).values()) == {(401, "not_authenticated")}, wrong
    response = as_(None).get("/v1/jobs")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="forerun"'
    assert "forerun keys create OWNER --local" in response.json()["detail"]


def test_a_key_to_read_changes_nothing_and_one_to_submit_makes_no_keys(
    client: httpx.Client, store: Store, as_: As
) -> None:
    for scope, of_others in (("read", FOR_ADMINS), ("submit", FOR_ADMINS)):
        as_(key(store, scope=scope))  # type: ignore[arg-type]
        for method, path in operations(client):
            name = f"{method} {path}"
            response = call(client, method, path, "job-0")
            changes = method != "GET" and name not in FOR_READERS and scope == "read"
            refused = response.status_code == 403 and response.json()["code"] == "not_allowed"
            assert refused == (changes or name in of_others), (scope, name)
            assert response.status_code < 500


def test_what_each_route_takes_is_in_the_document(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for method, path in operations(client):
        name, operation = f"{method} {path}", paths[path][method.lower()]
        scope = "admin" if name in FOR_ADMINS else "read" if method == "GET" or name in FOR_READERS else "submit"
        assert operation["security"] == ([] if name in OPEN else [{"api_key": [scope]}, {"session": [scope]}]), name
        assert ("401" in operation["responses"]) == (name not in OPEN)
    assert scope_needed("POST", "/v1/what-nobody-thought-of") == "submit"
    assert scope_needed("PATCH", "/v2/jobs/{job_id}") == "submit"
    assert scope_needed("GET", "/v1/what-nobody-thought-of") == "read"


def test_what_is_open_to_all_tells_nothing_of_jobs_or_the_cluster(
    client: httpx.Client, store: Store, fleet: FakeFleet, as_: As
) -> None:
    admin = key(store, scope="admin")
    for wrong in (None, "frn_wrong"):
        as_(wrong)
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready", "leadership": None, "ray": None}
        assert client.get("/openapi.json").status_code == 200
        assert client.get("/docs").status_code == 200
        outcome = client.post("/internal/jobs/job-1/outcome", json={"state": "succeeded"})
        assert outcome.json()["code"] in ("stale_attempt", "not_found")  # which has a secret of its own
    assert as_(admin).get("/readyz").json()["ray"]["dashboard_url"] == fleet.dashboard_url


# --- whose jobs -------------------------------------------------------------------------------------------


@pytest.fixture
def alices(client: httpx.Client, store: Store, as_: As) -> str:
    """A job of alice's that every answer about all jobs would tell of."""
    as_(key(store, "alice"))
    study = {"name": "study", "batch_sizes": [64], "variants": [{"name": "none", "method": "fixed"}]}
    queued = submit(client, experiment="alices", methods=[study])
    client.post(f"/v1/jobs/{queued}/cancel", headers=JSON).raise_for_status()
    return run_to_success(client, store, experiment="alices", methods=["stpt"])


def test_jobs_of_others_are_not_there(client: httpx.Client, store: Store, as_: As, alices: str) -> None:
    as_(key(store, "bob"))
    for method, path in operations(client):
        if (method, path) == ("POST", "/v1/session"):
            continue
        response = call(client, method, path, alices)
        if "{job_id}" in path:
            assert response.status_code == 404, (method, path)
            of_none = call(client, method, path, "job-none").json()
            same = {
                name: str(value).replace("job-none", alices) for name, value in of_none.items() if name != "request_id"
            }
            assert {name: str(value) for name, value in response.json().items() if name != "request_id"} == same
        elif path != "/v1/study":  # which repeats the name of the experiment
            assert "alice" not in response.text, (method, path)
            assert alices not in response.text, (method, path)
    assert client.get(f"/v1/jobs/{alices}/logs", params={"attempt": 1}).status_code == 404
    assert call(client, "GET", "/v1/recommendation", "").status_code == 404
    assert call(client, "GET", "/v1/study", "").status_code == 404
    assert client.get("/v1/lr-history").json()["items"] == []
    mine = [job["owner"] for job in client.get("/v1/jobs").json()["items"]]
    assert set(mine) <= {"bob"}


def test_no_spec_takes_anything_from_the_jobs_of_others(
    client: httpx.Client, store: Store, as_: As, alices: str
) -> None:
    replay = spec_document(methods=[{"name": "replay", "job": alices}])
    history = spec_document(lr_set={"from_history": True})
    for path in ("/v1/jobs", "/v1/plan"):
        as_(key(store, "bob"))
        assert [client.post(path, json=spec).status_code for spec in (replay, history)] == [422, 422]
        as_(key(store, "alice"))
        assert all(client.post(path, json=spec).is_success for spec in (replay, history))


def test_an_admin_sees_all_and_the_owner_their_own(client: httpx.Client, store: Store, as_: As, alices: str) -> None:
    as_(key(store, "bob"))
    bobs = submit(client)
    assert client.get(f"/v1/jobs/{bobs}").json()["owner"] == "bob"

    def seen() -> set[str]:
        return {job["id"] for job in client.get("/v1/jobs").json()["items"]}

    assert seen() == {bobs}
    as_(key(store, "alice", "read"))  # another key of the same owner
    assert alices in seen()
    assert bobs not in seen()
    as_(key(store, "carol", "admin"))
    assert {alices, bobs} <= seen()
    assert client.post(f"/v1/jobs/{bobs}/cancel", headers=JSON).status_code == 202
    assert client.get(f"/v1/jobs/{alices}/epochs").status_code == 200
    assert client.get("/v1/lr-history").json()["items"] != []


def test_jobs_from_before_the_first_key_belong_to_nobody(client: httpx.Client, store: Store, as_: As) -> None:
    job_id = submit(client)
    assert client.get(f"/v1/jobs/{job_id}").json()["owner"] is None
    forget(client)
    assert as_(key(store)).get(f"/v1/jobs/{job_id}").status_code == 404
    assert client.get("/v1/jobs").json()["items"] == []
    assert as_(key(store, "root", "admin")).get(f"/v1/jobs/{job_id}").status_code == 200


def test_idempotency_keys_are_each_owners_own(client: httpx.Client, store: Store, as_: As) -> None:
    headers = {"Idempotency-Key": "k"}

    def submitted(**changes: Any) -> httpx.Response:
        return client.post("/v1/jobs", json=spec_document(**changes), headers=headers)

    as_(key(store, "alice"))
    first = submitted().json()["id"]
    as_(key(store, "bob"))
    second = submitted(epochs=5).json()["id"]  # not in conflict with alice's
    assert second != first
    as_(key(store, "alice"))
    assert submitted().json()["id"] == first
    assert submitted(epochs=5).status_code == 409


def test_experiments_of_one_name_are_each_owners_own(client: httpx.Client, store: Store, as_: As) -> None:
    request = {"name": "lr-sets", "experiment": "mine", "spec": {"dataset": "digits", "model": "lenet5", "epochs": 4}}

    def ids() -> set[str]:
        response = client.post("/v1/experiments", json=request)
        assert response.status_code == 202, response.text
        return {job["id"] for job in response.json()["items"]}

    as_(key(store, "alice"))
    alices = ids()
    as_(key(store, "bob"))
    bobs = ids()
    assert not alices & bobs
    assert ids() == bobs


# --- keys over HTTP ---------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked(client: httpx.Client, store: Store, as_: As) -> None:
    made = client.post("/v1/keys", json={"owner": "root", "scope": "admin", "name": "first"})  # open as yet
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    first = made.json()
    assert re.fullmatch(r"frn_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", first["key"])
    assert first["prefix"] == f"frn_{first['id']}" == first["key"][:16]
    assert client.get("/v1/jobs").status_code == 401  # from now on
    as_(first["key"])
    ends = datetime(2099, 1, 1, tzinfo=UTC)
    second = client.post("/v1/keys", json={"owner": "alice", "expires_at": ends.isoformat()}).json()
    assert (second["scope"], second["expires_at"], second["name"]) == ("submit", "2099-01-01T00:00:00Z", "")
    listed = client.get("/v1/keys")
    assert [one["owner"] for one in listed.json()["items"]] == ["root", "alice"]
    assert first["key"] not in listed.text
    assert second["key"][17:] not in listed.text
    assert "hash" not in listed.text
    assert as_(second["key"]).get("/v1/jobs").status_code == 200
    revoked = as_(first["key"]).delete(f"/v1/keys/{second['prefix']}", headers=JSON).json()
    assert revoked["revoked_at"] is not None
    assert client.delete(f"/v1/keys/{second['id']}", headers=JSON).json() == revoked
    assert as_(second["key"]).get("/v1/jobs").status_code == 401  # at once
    assert as_(first["key"]).delete("/v1/keys/none", headers=JSON).status_code == 404
    with store.read() as session:
        kept = find_api_key(session, first["id"])
    assert kept is not None
    assert first["key"] not in repr(vars(kept))
    assert "hash" not in repr(kept)


def test_a_key_that_makes_no_sense_is_refused_by_field(client: httpx.Client) -> None:
    for body, field in [
        ({}, "owner"),
        ({"owner": "a b"}, "owner"),
        ({"owner": "\x00"}, "owner"),
        ({"owner": "a", "scope": "root"}, "scope"),
        ({"owner": "a", "name": "x\x1b"}, "name"),
        ({"owner": "a", "name": "\u202ex"}, "name"),
        ({"owner": "a", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"owner": "a", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"owner": "a", "scopes": []}, "scopes"),
    ]:
        response = client.post("/v1/keys", json=body)
        assert (response.status_code, [e["field"] for e in response.json()["errors"]]) == (422, [field]), body


def test_the_last_use_is_written_once_a_minute(
    client: httpx.Client, store: Store, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_(key(store))
    [made] = _keys(store)
    assert made.last_used_at is None
    seen = []
    for seconds in (0, 59, 61):
        at = made.created_at + timedelta(seconds=seconds)
        for module in ("service.access.keys", "api.gate"):
            monkeypatch.setattr(f"{module}.now", lambda at=at: at)
        forget(client)
        assert client.get("/v1/jobs").status_code == 200
        seen.append(_keys(store)[0].last_used_at)
    assert seen == [made.created_at, made.created_at, made.created_at + timedelta(seconds=61)]


def _keys(store: Store) -> Any:
    with store.read() as session:
        return list_api_keys(session)


# --- how much ---------------------------------------------------------------------------------------------


@pytest.fixture
def sparing(services: Services) -> Iterator[httpx.Client]:
    """The API behind a gate that lets three requests an hour through."""
    gate = Gate(rate="3/hour", event_streams=1)
    with TestClient(app_over(replace(services, gate=gate)), raise_server_exceptions=False) as client:
        yield client


def test_a_key_that_sends_too_much_is_told_when_to_come_back(sparing: httpx.Client, store: Store) -> None:
    one, other = key(store), key(store, "bob")
    statuses = [sparing.get("/v1/jobs", headers={"Authorization": f"Bearer {one}"}).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    response = sparing.get("/v1/jobs", headers={"Authorization": f"Bearer {one}"})
    assert response.json()["code"] == "too_many_requests"
    assert "may send 3 requests per hour; try again in" in response.json()["detail"]
    assert 3500 <= int(response.headers["Retry-After"]) <= 3601
    assert sparing.get("/healthz", headers={"Authorization": f"Bearer {one}"}).status_code == 200
    assert sparing.get("/v1/jobs", headers={"Authorization": f"Bearer {other}"}).status_code == 200


def test_streams_of_a_key_are_counted_while_they_last(store: Store) -> None:
    gate = Gate(event_streams=1)
    mine, others = (keys.key_of(store, key(store, owner)) for owner in ("alice", "bob"))
    with gate.stream(mine), gate.stream(others), gate.stream(None), gate.stream(None):
        one_too_many = pytest.raises(TooManyRequests, match="may follow 1 streams of events at once")
        with one_too_many, gate.stream(mine):
            pass
    with gate.stream(mine):
        pass


def test_a_key_follows_as_many_streams_as_it_may_and_none_once_it_is_revoked(services: Services) -> None:
    gate = Gate(event_streams=1)
    text = key(services.store)
    with (
        serving(replace(services, gate=gate)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {text}"}) as client,
    ):
        job_id = submit(client)
        path = f"/v1/jobs/{job_id}/events"
        with client.stream("GET", path) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: state"
            refused = client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
            keys.revoke_key(services.store, text.split("_")[1])
            gate.forget()
            cancel(services.store, job_id)
            assert [line for line in lines if line.startswith("data")] == [_first_event(services.store, job_id)]


def _first_event(store: Store, job_id: str) -> str:
    with store.read() as session:
        [first, *_] = events_after(session, job_id, 0)
    return f"data: {translate.event(first).model_dump_json()}"


# --- browsers ---------------------------------------------------------------------------------------------

OURS = {"Origin": "http://testserver", "Content-Type": "application/json"}


def test_a_browser_logs_in_by_a_key_and_out_again(client: httpx.Client, store: Store, as_: As) -> None:
    as_(key(store, "alice"))
    response = client.post("/v1/session", headers=OURS)
    assert response.json() == {"owner": "alice", "scope": "submit", "keys_required": True}
    cookie = response.headers["Set-Cookie"]
    assert re.search(r"HttpOnly; .*SameSite=strict", cookie)
    assert "Secure" not in cookie
    assert "Path=/" in cookie
    as_(None)
    assert client.get("/v1/session").json()["owner"] == "alice"
    job_id = client.post("/v1/jobs", json=spec_document(), headers=OURS).json()["id"]
    assert client.get(f"/v1/jobs/{job_id}").json()["owner"] == "alice"
    assert client.post("/v1/session", headers=OURS).status_code == 401  # a session does not prolong itself
    assert client.delete("/v1/session", headers=OURS).status_code == 204
    assert COOKIE not in client.cookies
    client.cookies.set(COOKIE, cookie.partition("=")[2].partition(";")[0])
    assert client.get("/v1/session").status_code == 401


def test_over_https_the_cookie_goes_over_https_alone(services: Services, store: Store) -> None:
    with TestClient(app_over(services), base_url="https://testserver") as client:
        response = client.post("/v1/session", headers={"Authorization": f"Bearer {key(store)}", **OURS})
        assert "; Secure" in response.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "http://testserver:3000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver:3000"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_a_cookie_changes_nothing_for_pages_of_others(
    client: httpx.Client, store: Store, as_: As, headers: dict[str, str]
) -> None:
    as_(key(store))
    client.post("/v1/session", headers=OURS)
    as_(None)
    response = client.post("/v1/jobs", json=spec_document(), headers=headers)
    assert response.status_code == 403
    assert client.get("/v1/jobs", headers=headers).json()["items"] == []


def test_a_deletion_is_asked_for_again_by_its_owner(client: httpx.Client, store: Store, as_: As) -> None:
    as_(key(store))
    job_id = submit(client)
    client.post(f"/v1/jobs/{job_id}/cancel", headers=JSON).raise_for_status()
    assert as_(key(store, "bob")).delete(f"/v1/jobs/{job_id}", headers=JSON).status_code == 404
    as_(key(store))
    assert [client.delete(f"/v1/jobs/{job_id}", headers=JSON).status_code for _ in range(2)] == [204, 204]


def test_a_login_ends_with_its_key(client: httpx.Client, store: Store, as_: As) -> None:
    text = key(store)
    as_(text)
    client.post("/v1/session", headers=OURS)
    as_(None)
    assert client.get("/v1/jobs").status_code == 200
    keys.revoke_key(store, text.split("_")[1])
    forget(client)
    assert client.get("/v1/jobs").status_code == 401


def test_a_login_ends_after_twelve_hours(
    client: httpx.Client, store: Store, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_(key(store))
    client.post("/v1/session", headers=OURS)
    as_(None)
    assert client.get("/v1/jobs").status_code == 200
    forget(client)
    at = datetime.now(UTC) + timedelta(hours=12, seconds=1)
    monkeypatch.setattr(keys, "now", lambda: at)
    assert client.get("/v1/jobs").status_code == 401


def test_without_keys_everybody_is_in(client: httpx.Client) -> None:
    assert client.get("/v1/session").json() == {"owner": None, "scope": "admin", "keys_required": False}
    response = client.post("/v1/session", headers=OURS)
    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers
    # whatever is sent: a key of another service does not lock anybody out
    assert client.get("/v1/jobs", headers={"Authorization": "Bearer frn_x"}).status_code == 200


# --- secrets ----------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_log_or_an_error(
    client: httpx.Client, store: Store, as_: As, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    text = key(store, scope="admin")
    secret = text.split("_", 2)[2]
    answers = [as_(text[:-1] + "!").get("/v1/jobs"), as_(text).get("/v1/jobs", params={"unknown": 1})]
    answers += [client.get("/none"), client.post("/v1/keys", json={"owner": ""})]
    monkeypatch.setattr("api.routes.jobs.shown.list_jobs", lambda *_, **__: 1 / 0)
    answers.append(client.get("/v1/jobs"))
    assert [answer.status_code for answer in answers] == [401, 422, 404, 422, 500]
    told = caplog.text + "".join(answer.text + str(answer.headers) for answer in answers)
    assert secret[:-1] not in told
    assert "ZeroDivisionError" in caplog.text
