"""What every route has in common: problem documents, headers, and that nothing inside is told to the outside."""

import logging
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from api.deps import Services
from service import errors
from service.store import shown
from tests.builders import JSON, spec_document

pytest_plugins = ["tests.databases"]


def subclasses(kind: type[errors.ForerunError]) -> list[type[errors.ForerunError]]:
    """Those of the service: the client has its own."""
    ours = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(below for child in ours for below in subclasses(child))]


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/job", "/v1/jobs/", "/v2/jobs", "/%00", "/%0d%0aX-Injected:1", "/%ff"]
)
def test_unknown_path(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    problem = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, problem["status"]) == (404, 404)
    assert (problem["type"], problem["title"]) == ("urn:forerun:error:not_found", "Not found")
    assert problem["instance"].isascii()
    assert problem["instance"] in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/jobs", "GET, POST"),
        ("PUT", "/v1/jobs/job-1", "GET, PATCH, DELETE"),
        ("GET", "/v1/jobs/job-1/cancel", "POST"),
        ("POST", "/healthz", "GET"),
        ("GET", "/internal/jobs/job-1/ticket", "POST"),
    ],
)
def test_other_methods(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    response = client.request(method, path)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == allowed
    assert response.json()["detail"] == f"{path} takes {allowed}, not {method}"


@pytest.mark.parametrize("error", subclasses(errors.ForerunError), ids=lambda error: error.__name__)
def test_every_error_of_ours(client: httpx.Client, error: type[errors.ForerunError]) -> None:
    of_fields = error in (errors.InvalidInput, errors.NoWeights)
    argument: Any = [errors.FieldError("f", None, "why")] if of_fields else "why"
    with patch.object(shown, "list_jobs", side_effect=error(argument)):
        response = client.get("/v1/jobs")
    more = {"errors": [{"field": "f", "value": None, "message": "why"}]} if of_fields else {}
    assert response.status_code == error.status
    assert response.json() == {
        "type": f"urn:forerun:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": "f: why" if more else "why",
        "code": error.code,
        "instance": "/v1/jobs",
        "request_id": response.headers["X-Request-ID"],
        **more,
    }


def test_unexpected_errors_stay_inside(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with patch.object(shown, "list_jobs", side_effect=RuntimeError("a secret of ours")):
        response = client.get("/v1/jobs")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (500, "internal")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "secret" not in response.text
    assert "RuntimeError" not in response.text
    (record,) = [record for record in caplog.records if record.name == "forerun.api"]
    assert record.levelno == logging.ERROR
    assert problem["request_id"] in record.getMessage()
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert "a secret of ours" in str(record.exc_info)


def test_database_that_is_gone(client: httpx.Client, services: Services) -> None:
    with services.store.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO lost")
        connection.commit()
    for method, path in (("GET", "/v1/jobs"), ("GET", "/v1/jobs/x/events"), ("POST", "/v1/jobs/x/cancel")):
        response = client.request(method, path, headers=JSON)
        assert (response.status_code, response.json()["code"]) == (500, "internal")
        assert "jobs" not in response.json()["detail"]  # no SQL


def test_headers_on_every_answer(client: httpx.Client) -> None:
    answers = [client.get("/healthz"), client.get("/none"), client.get("/v1/jobs?limit=0"), client.get("/docs")]
    assert {answer.headers["X-Content-Type-Options"] for answer in answers} == {"nosniff"}
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == len(answers)


# --- a refusal is short, however long the request was ---------------------------------------------------


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert len(response.content) < 24_000
    return problem


def test_a_query_of_unknown_parameters(client: httpx.Client) -> None:
    problem = refusal(client.get("/v1/jobs?" + "&".join(f"x{number}=1" for number in range(900))), 422)
    assert [error["field"] for error in problem["errors"]] == [f"x{number}" for number in range(20)]
    assert problem["more_errors"] == 880
    assert problem["detail"].endswith("; and 880 more")


def test_a_query_of_wrong_values(client: httpx.Client) -> None:
    problem = refusal(client.get("/v1/jobs?" + "&".join(f"state=x{number}" for number in range(600))), 422)
    assert (len(problem["errors"]), problem["more_errors"]) == (20, 580)


def test_a_parameter_as_long_as_the_query_may_be(client: httpx.Client) -> None:
    (error,) = refusal(client.get("/v1/jobs?" + "x" * 8000), 422)["errors"]
    assert error["field"] == "x" * 200 + "…"
    (error,) = refusal(client.get("/v1/jobs?limit=" + "x" * 8000), 422)["errors"]
    assert error["value"] == "x" * 200
    assert refusal(client.get("/" + "x" * 8000), 404)["instance"] == "/" + "x" * 199 + "%E2%80%A6"
    assert refusal(client.get("/", headers={"Host": "x" * 8000}), 421)["detail"].startswith("'xxx")


@pytest.mark.parametrize(
    "document",
    [
        spec_document() | {f"key{number}": 1 for number in range(4000)},
        spec_document() | {"k" * 60_000: 1},
        spec_document() | {"model": "m" * 60_000},
        spec_document() | {"lr_set": {"learning_rates": ["x"] * 10_000}},
        spec_document() | {"lr_set": {"learning_rates": [[[["x" * 60_000]]]]}},
        spec_document() | {"methods": [{"name": "m" * 1000}] * 50},
        spec_document() | {"methods": [{"name": "stpt", "k" * 1000: {"a" * 1000: 1}}] * 25},
    ],
    ids=["many keys", "long key", "long name", "many items", "long item", "many methods", "long keys in methods"],
)
def test_a_spec_that_is_wrong_all_over(client: httpx.Client, document: dict[str, Any]) -> None:
    problem = refusal(client.post("/v1/jobs", json=document), 422)
    assert 1 <= len(problem["errors"]) <= 20


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"a":' * 10_000, b'{"a":[' * 101 + b"]}" * 101])
def test_json_that_is_nested_too_deeply(client: httpx.Client, body: bytes) -> None:
    for path in ("/v1/jobs", "/v1/plan", "/v1/experiments"):
        (error,) = refusal(client.post(path, content=body, headers=JSON), 422)["errors"]
        assert error["field"] == "body"
        assert error["message"] == ("brackets are nested too deeply: 200 inside each other at most; no spec needs ten")
