"""What a page of another site cannot do by a user's browser, and what a browser does not do with an answer."""

import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import httpx
import pytest

from api.headers import SECURITY_HEADERS
from service.store.engine import Store
from tests.builders import JSON, run_to_success, spec_document, submit

pytest_plugins = ["tests.databases"]

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FOREIGN = "http://evil.example"
CROSS_SITE = [
    {"Origin": FOREIGN},
    {"Origin": "null"},  # a sandboxed frame, a file
    {"Origin": "http://testserver:3000"},  # another service of this machine
    {"Origin": "http://testserver.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
]


@pytest.fixture
def changes(client: httpx.Client) -> list[tuple[str, Any, int]]:
    """Requests that change something: path, body, and the status where they are let in."""
    return [
        ("/v1/jobs", spec_document(), 202),
        ("/v1/plan", spec_document(), 200),
        (f"/v1/jobs/{submit(client)}/cancel", None, 202),
    ]


@pytest.mark.parametrize("headers", CROSS_SITE, ids=str)
def test_pages_of_other_sites_change_nothing(
    client: httpx.Client, changes: list[tuple[str, Any, int]], headers: dict[str, str]
) -> None:
    for path, body, _ in changes:
        response = client.post(path, json=body, headers=JSON | headers)
        assert (response.status_code, response.json()["code"]) == (403, "cross_site_request"), path
        assert response.headers["Content-Type"] == "application/problem+json"
    assert [job["state"] for job in client.get("/v1/jobs").json()["items"]] == ["queued"]


def test_the_refusal_names_the_page(client: httpx.Client) -> None:
    response = client.post("/v1/jobs", json=spec_document(), headers={"Origin": FOREIGN})
    assert response.json()["detail"] == (
        "a page of http://evil.example asks for a change here; only this service's own pages may"
    )


@pytest.mark.parametrize("headers", [{}, FORM, {"Content-Type": "text/plain"}, {"Sec-Fetch-Site": "none"}], ids=str)
def test_what_any_page_can_send_without_asking_changes_nothing(client: httpx.Client, headers: dict[str, str]) -> None:
    job_id = submit(client)
    response = client.post(f"/v1/jobs/{job_id}/cancel", headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert response.json()["detail"].startswith("send the header Content-Type: application/json with every request")
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://forerun.example"},  # behind a proxy that has another Host
        {"Origin": "http://testserver"},
        {"Origin": "HTTP://TESTSERVER"},
    ],
    ids=str,
)
def test_clients_and_pages_of_our_own(
    client: httpx.Client, changes: list[tuple[str, Any, int]], headers: dict[str, str]
) -> None:
    for path, body, status in changes:
        assert client.post(path, json=body, headers=JSON | headers).status_code == status, path


def test_a_page_of_our_own_needs_no_media_type_where_there_is_no_body(client: httpx.Client) -> None:
    path = f"/v1/jobs/{submit(client)}/cancel"  # as the page /docs sends it
    assert client.post(path, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 202
    assert client.post("/v1/plan", content="{}", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 415


def test_reading_changes_nothing_and_is_free(client: httpx.Client) -> None:
    assert client.get("/v1/jobs", headers={"Sec-Fetch-Site": "cross-site", "Origin": FOREIGN}).status_code == 200
    # without CORS headers, a browser does not hand the answer to the page
    assert not [name for name in client.get("/v1/jobs").headers if name.startswith("access-control-")]


# --- headers ---------------------------------------------------------------------------------------------


def test_every_answer_has_them(client: httpx.Client, sqlite_store: Store) -> None:
    path = f"/v1/jobs/{run_to_success(client, sqlite_store)}"
    answers = [
        *(client.get(one) for one in ("/healthz", "/readyz", "/openapi.json", "/none", path, f"{path}/lr-history")),
        client.get("/v1/jobs?limit=0"),
        client.get("/healthz", headers={"Host": "evil.example"}),
        client.get("/healthz?" + "a" * 10_000),
        client.post("/v1/jobs", json=spec_document(epochs=0)),
        client.post("/v1/jobs", headers={"Origin": FOREIGN}),
        client.delete("/v1/jobs"),
        client.get(f"{path}/comparison?format=csv"),
    ]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS, answer.url
    assert SECURITY_HEADERS == {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
    }


def test_a_figure_that_is_opened_runs_nothing(client: httpx.Client, sqlite_store: Store) -> None:
    path = f"/v1/jobs/{run_to_success(client, sqlite_store)}/comparison"
    answer = client.get(path, params={"format": "svg"})
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert answer.headers["Content-Security-Policy"] == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "style-src 'unsafe-inline'; sandbox"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_documentation_runs_its_own_scripts_alone(client: httpx.Client) -> None:
    page = client.get("/docs")
    [script] = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    directives = dict(one.split(" ", 1) for one in page.headers["Content-Security-Policy"].split("; "))
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert directives == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "script-src": f"'self' 'sha256-{digest}'",
        "style-src": "'self' 'unsafe-inline'",
    }


def test_what_is_kept_in_caches(client: httpx.Client) -> None:
    """Answers about jobs are not; the files of the page /docs are, for as long as they are the same."""
    assert client.get("/v1/jobs").headers["Cache-Control"] == "no-store"
    asset = client.get("/docs/assets/swagger-ui.css")
    assert asset.headers["Cache-Control"] == "no-cache"
    assert (
        client.get("/docs/assets/swagger-ui.css", headers={"If-None-Match": asset.headers["ETag"]}).status_code == 304
    )
