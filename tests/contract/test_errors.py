"""What every route has in common: problem documents, headers, and that nothing inside is told to the outside."""

import logging
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from api.deps import Services
from service import errors
from service.store import jobs as stored_jobs
from tests.builders import JSON

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
        ("PUT", "/v1/jobs/job-1", "GET"),
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
    with patch.object(stored_jobs, "list_jobs", side_effect=error(argument)):
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
        **more,
    }


def test_unexpected_errors_stay_inside(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with patch.object(stored_jobs, "list_jobs", side_effect=RuntimeError("a secret of ours")):
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
