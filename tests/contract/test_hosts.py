"""Requests for another host are refused: DNS rebinding."""

import httpx
import pytest

pytest_plugins = ["tests.databases"]


@pytest.mark.parametrize(
    "host", ["testserver", "TESTSERVER:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "192.168.7.9:80"]
)
def test_names_of_the_service_and_addresses(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example:8000", "", "[::1", "127.0.0.1.evil.example"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/internal/jobs/job-1/ticket", "/docs", "/none"])
def test_other_names(client: httpx.Client, host: str, path: str) -> None:
    response = client.get(path, headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (421, "misdirected_request")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"] == f"{host!r} is not a name of this service; FORERUN_ALLOWED_HOSTS may name it"
    assert "X-Request-ID" in response.headers
