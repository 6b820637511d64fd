"""Every route of the application x {no key, bad, expired, revoked, read-only, other owner}.

The routes are those of the application itself, with what the OpenAPI document leaves out: a new one stands in one of
the short lists below, with the reason, or it is refused and changes nothing. That the same requests go through with the
right key is asked last.
"""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from api.app import ROUTES
from api.deps import Services
from service.access import keys
from service.store.engine import Store
from service.webhooks.hosts import AllowedHosts
from service.webhooks.sender import Sender
from tests.builders import epoch_record, run_to_success, spec_document

pytest_plugins = ["tests.databases"]

OPEN = {
    "GET /healthz": "whoever starts and watches the service has no key; it says nothing but that it is up",
    "GET /readyz": "as above; without a key it does not tell of the cluster",
    "GET /openapi.json": "it describes the API, which is published",
    "HEAD /openapi.json": "as above",
    "GET /docs": "a page around that document",
    "GET /docs/assets/swagger-ui.css": "and its files, which come with a package",
}
OF_WORKERS = "/internal/"  # for a ticket or a report token, which no API key replaces
FOR_READERS = {
    "POST /v1/plan": "a forecast, of which nothing is stored",
    "POST /v1/session": "logs a browser in by this key, which may no more than the key",
    "DELETE /v1/session": "and out",
}  # beside every GET, which changes nothing
OF_ADMINS = ("/v1/keys", "/v1/webhooks")

QUERIES = {
    "/v1/recommendation": {"model": "lenet5", "dataset": "digits"},
    "/v1/study": {"experiment": "of-alice"},
    "/v1/jobs/{job_id}/selector-replay": {"selector": "greedy"},
}
CHANGES = {"Content-Type": "application/json"}
SPEC = spec_document(name="alices job", experiment="of-alice")
EXPERIMENT = {"name": "lr-sets", "spec": {"dataset": "digits", "model": "lenet5", "epochs": 4}}
TRIAL = {"label": "stpt", "trial": 1, "seed": 0, "epochs": 3, "state": "running"}
BODIES: dict[str, Any] = {
    "POST /v1/jobs": SPEC,
    "PATCH /v1/jobs/{job_id}": {"priority": 1},
    "POST /v1/plan": SPEC,
    "POST /v1/experiments": EXPERIMENT,
    "POST /v1/keys": {"owner": "mallory", "scope": "admin"},
    "POST /v1/webhooks": {"url": "https://hooks.example.com/forerun", "events": ["epoch"]},
    "POST /internal/jobs/{job_id}/ticket": {"ticket": "t"},
    "POST /internal/jobs/{job_id}/epochs": epoch_record(1),
    "POST /internal/jobs/{job_id}/trials": TRIAL,
    "POST /internal/jobs/{job_id}/heartbeat": {"iterations": 1},
    "POST /internal/jobs/{job_id}/outcome": {"state": "succeeded"},
}


def every_route(app: FastAPI) -> Iterator[str]:
    """Method and path of all that the application answers to."""
    known = [route for module in ROUTES for route in module.router.routes]
    rest = [route for route in app.routes if isinstance(route, (Route, APIRoute, Mount))]
    assert len(app.routes) == len(rest) + len(ROUTES), "there are routes that this does not know of"
    for route in known + rest:
        if isinstance(route, Mount):
            assert route.path == "/docs/assets", "what is mounted has a gate of its own, or none"
            yield f"GET {route.path}/swagger-ui.css"
        else:
            assert isinstance(route, Route)
            yield from (f"{method} {route.path}" for method in sorted(route.methods or ()))


@pytest.fixture
def names(client: httpx.Client) -> list[str]:
    return sorted(every_route(client.app))  # type: ignore[attr-defined]


@pytest.fixture
def services(services: Services) -> Services:
    return replace(services, sender=Sender(AllowedHosts.parse(["hooks.example.com"])))  # which nothing is sent to


@pytest.fixture
def alices(client: httpx.Client, sqlite_store: Store) -> str:
    """A job of alice's."""
    client.headers["Authorization"] = f"Bearer {make(sqlite_store)}"
    job_id = run_to_success(client, sqlite_store, name="alices job", experiment="of-alice")
    del client.headers["Authorization"]
    return job_id


def make(db: Store, owner: str = "alice", **more: Any) -> str:
    return keys.create_key(db, owner, **more)[1]


def ask(client: httpx.Client, key: str | None, name: str, job_id: str) -> httpx.Response:
    method, path = name.split()
    client.cookies.clear()  # of an earlier login
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if method not in ("GET", "HEAD"):
        headers |= CHANGES
    url = path.format(job_id=job_id, epoch=1, key_id="0" * 12, webhook_id="hook-0")
    body = {"json": BODIES[name]} if name in BODIES else {}
    return client.request(method, url, params=QUERIES.get(path), headers=headers, **body)


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json", response.text
    return response.status_code, response.json()["code"]


def rows(db: Store) -> dict[str, list[Any]]:
    """All that is in the database, but when keys were last used, and who is logged in."""
    assert db.file is not None
    with sqlite3.connect(db.file) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}  # noqa: S608
        found["api_keys"] = connection.execute("SELECT id, owner, scope, revoked_at FROM api_keys").fetchall()
    connection.close()
    return {name: some for name, some in found.items() if name != "login_sessions"}


# --- keys that are no keys --------------------------------------------------------------------------------


def no_key(db: Store) -> None:
    return None


def bad(db: Store) -> str:
    return make(db)[:-1] + "!"


def expired(db: Store) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "now", lambda: datetime.now(UTC) - timedelta(hours=2))
        return make(db, scope="admin", expires_at=datetime.now(UTC) - timedelta(hours=1))


def revoked(db: Store) -> str:
    key = make(db, scope="admin")
    keys.revoke_key(db, key.split("_")[1])
    return key


@pytest.mark.parametrize("which", [no_key, bad, expired, revoked])
def test_what_is_no_valid_key_is_refused(
    which: Callable[[Store], str | None], client: httpx.Client, names: list[str], sqlite_store: Store, alices: str
) -> None:
    key, refused = which(sqlite_store), 0
    before = rows(sqlite_store)
    for name in names:
        response = ask(client, key, name, alices)
        if name in OPEN:
            assert response.status_code in (200, 503), name
            assert alices not in response.text, name
            continue
        expected = (403, "stale_attempt") if OF_WORKERS in name else (401, "not_authenticated")
        assert refusal(response) == expected, name
        refused += 1
    assert refused == len(names) - len(OPEN) >= 40
    assert rows(sqlite_store) == before


# --- keys that may not --------------------------------------------------------------------------------------


def test_a_key_to_read_changes_nothing(
    client: httpx.Client, names: list[str], sqlite_store: Store, alices: str
) -> None:
    key = make(sqlite_store, scope="read")
    before = rows(sqlite_store)
    for name in names:
        response = ask(client, key, name, alices)
        if OF_WORKERS in name:
            assert refusal(response) == (403, "stale_attempt"), name
        elif name.split()[1].startswith(OF_ADMINS) or not (name in OPEN | FOR_READERS or name.startswith("GET ")):
            assert refusal(response) == (403, "not_allowed"), name
        else:
            assert response.status_code not in (401, 403), name
    assert rows(sqlite_store) == before


def test_jobs_of_another_owner_are_not_there(
    client: httpx.Client, names: list[str], sqlite_store: Store, alices: str
) -> None:
    key = make(sqlite_store, "bob")
    before = rows(sqlite_store)
    for name in names:
        response = ask(client, key, name, alices)
        if OF_WORKERS in name:
            assert refusal(response) == (403, "stale_attempt"), name
        elif name.split()[1].startswith(OF_ADMINS):
            assert refusal(response) == (403, "not_allowed"), name
        elif "{job_id}" in name:
            assert refusal(response) == (404, "not_found"), name
        else:  # about bob's own, and what is nobody's
            assert response.status_code in (200, 201, 202, 204, 404, 503), name
            assert alices not in response.text, name
    after = rows(sqlite_store)
    for table, known in before.items():
        assert [row for row in after[table] if row in known] == known, f"{table} of alice's"


def test_with_the_right_key_the_same_requests_are_heard(
    client: httpx.Client, names: list[str], sqlite_store: Store, alices: str
) -> None:
    key = make(sqlite_store, "root", scope="admin")
    heard = {name: ask(client, key, name, alices) for name in names if OF_WORKERS not in name}
    wrong = {name: response.text for name, response in heard.items() if response.status_code in (401, 403, 422)}
    assert wrong == {}
