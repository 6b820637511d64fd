"""Telemetry of layers: JSON and CSV in pages, and the figure."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session

from api.deps import Services
from service.store.engine import Store
from tests.builders import Worker, claim, epoch_record, submit

pytest_plugins = ["tests.databases"]

NAMES = ["0.weight", "3.weight"]
SCHEDULED = {"phase": "scheduled", "branches": []}


def layers(epoch: int, **changes: Any) -> dict[str, Any]:
    """Two layers, two samples an epoch of 20 steps; the second layer has lost its gradient, then itself."""
    return {
        "names": NAMES,
        "first_step": 20 * (epoch - 1),
        "every": 10,
        "lwn": [[1.5, 1.25], [2.0, None]],
        "lgn": [[0.5, 0.5 / epoch], [0.0, None]],
        "trust_ratio": [[0.003, 0.0025 * epoch], [1.0, None]],
    } | changes


@pytest.fixture
def job_id(client: httpx.Client, sqlite_store: Store) -> str:
    """stpt with three epochs beside a sweep of two trials with one each, without trust ratios."""
    methods = ["stpt", {"name": "sweep", "learning_rates": [0.1, 0.2]}]
    job_id = submit(client, methods=methods, telemetry={"every": 10})
    worker = Worker.started(client, claim(sqlite_store))
    for epoch in (1, 2, 3):
        worker.report(epoch_record(epoch, layers=layers(epoch))).raise_for_status()
    for trial in (1, 2):
        one = epoch_record(1, **SCHEDULED, label="sweep", trial=trial, layers=layers(1, trust_ratio=None))
        worker.report(one).raise_for_status()
    return job_id


def test_layers_as_json(client: httpx.Client, job_id: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/layers")
    assert (response.headers["Content-Type"], response.headers["Vary"]) == ("application/json", "Accept")
    answer = response.json()
    assert (answer["job_id"], answer["next_cursor"], "Link" in response.headers) == (job_id, None, False)
    assert len(answer["items"]) == 10
    assert answer["items"][2:4] == [
        {
            "label": "stpt",
            "method": "stpt",
            "trial": 1,
            "epoch": 2,
            "attempt": 1,
            "layer": "0.weight",
            "steps": [20, 30],
            "lwn": [1.5, 1.25],
            "lgn": [0.5, 0.25],
            "lnr": [3.0, 5.0],
            "trust_ratio": [0.003, 0.005],
        },
        {
            "label": "stpt",
            "method": "stpt",
            "trial": 1,
            "epoch": 2,
            "attempt": 1,
            "layer": "3.weight",
            "steps": [20, 30],
            "lwn": [2.0, None],
            "lgn": [0.0, None],
            "lnr": [None, None],
            "trust_ratio": [1.0, None],
        },
    ]
    assert [item["trust_ratio"] for item in answer["items"][6:]] == [None] * 4


def keys_of(client: httpx.Client, job_id: str, **params: Any) -> list[tuple[str, int, int, str]]:
    """(method, trial, epoch, layer) of every page; pages are followed by their `Link`."""
    url, keys = str(httpx.URL(f"/v1/jobs/{job_id}/layers", params=params)), []
    while True:
        response = client.get(url).raise_for_status()
        keys += [(item["method"], item["trial"], item["epoch"], item["layer"]) for item in response.json()["items"]]
        if "Link" not in response.headers:
            return keys
        url = response.headers["Link"].partition("<")[2].partition(">")[0]
        assert response.json()["next_cursor"] in url


STPT = [("stpt", 1, epoch, name) for epoch in (1, 2, 3) for name in NAMES]
SWEEP = [("sweep", trial, 1, name) for trial in (1, 2) for name in NAMES]


@pytest.mark.parametrize("limit", [1, 3, 7, 10, 1000])
def test_pages(client: httpx.Client, job_id: str, limit: int) -> None:
    assert keys_of(client, job_id, limit=limit) == STPT + SWEEP


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"label": "sweep"}, SWEEP),
        ({"trial": 2}, SWEEP[2:]),
        ({"label": "stpt", "trial": 1, "layer": "3.weight"}, STPT[1::2]),
        ({"layer": "3.WEIGHT"}, []),
        ({"first_epoch": 2}, STPT[2:]),
        ({"first_epoch": 2, "last_epoch": 2}, STPT[2:4]),
        ({"last_epoch": 1}, STPT[:2] + SWEEP),
        ({"first_epoch": 3, "last_epoch": 2}, []),
    ],
)
def test_filters(client: httpx.Client, job_id: str, params: dict[str, Any], expected: list[Any]) -> None:
    assert keys_of(client, job_id, **params) == expected
    assert keys_of(client, job_id, **params, limit=1) == expected


def test_layers_as_csv(client: httpx.Client, job_id: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/layers?limit=3", headers={"Accept": "text/csv"})
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{job_id}-layers.csv"'
    assert "cursor=" in response.headers["Link"]
    rows = list(csv.reader(io.StringIO(response.text)))
    assert rows == [
        ["label", "method", "trial", "epoch", "attempt", "layer", "step", "lwn", "lgn", "lnr", "trust_ratio"],
        ["stpt", "stpt", "1", "1", "1", "0.weight", "0", "1.5", "0.5", "3.0", "0.003"],
        ["stpt", "stpt", "1", "1", "1", "0.weight", "10", "1.25", "0.5", "2.5", "0.0025"],
        ["stpt", "stpt", "1", "1", "1", "3.weight", "0", "2.0", "0.0", "", "1.0"],
        ["stpt", "stpt", "1", "1", "1", "3.weight", "10", "", "", "", ""],
        ["stpt", "stpt", "1", "2", "1", "0.weight", "20", "1.5", "0.5", "3.0", "0.003"],
        ["stpt", "stpt", "1", "2", "1", "0.weight", "30", "1.25", "0.25", "5.0", "0.005"],
    ]


@pytest.mark.parametrize(
    ("query", "accept", "kind", "shown"),
    [
        ("", "image/svg+xml", "image/svg+xml", ["trust ratio", "0.weight", "3.weight"]),
        ("?format=svg&label=sweep&trial=2&layer=0.weight", "*/*", "image/svg+xml", ["LNR:", "sweep 2"]),
        ("?format=svg&trial=9", "*/*", "image/svg+xml", ["no layer is recorded"]),
        ("?format=png", "application/json", "image/png", []),
    ],
)
def test_the_figure(client: httpx.Client, job_id: str, query: str, accept: str, kind: str, shown: list[str]) -> None:
    response = client.get(f"/v1/jobs/{job_id}/layers{query}", headers={"Accept": accept})
    assert response.headers["Content-Type"].partition(";")[0] == kind
    assert response.headers["Content-Disposition"].startswith("inline; ")
    assert response.content.startswith(b"<?xml" if "svg" in kind else b"\x89PNG\r\n\x1a\n")
    assert all(text in response.text for text in shown)


def test_a_figure_is_drawn_with_no_session_open(
    client: httpx.Client, services: Services, sqlite_store: Store, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Session] = []
    read = sqlite_store.read

    @contextmanager
    def counted() -> Iterator[Session]:
        with read() as session:
            opened.append(session)
            yield session
            opened.remove(session)

    def draw(*_: Any) -> bytes:
        return f"{len(opened)} open".encode()

    monkeypatch.setattr(sqlite_store, "read", counted)
    monkeypatch.setattr(services.computing, "run", draw)
    assert client.get(f"/v1/jobs/{job_id}/layers?format=svg").text == "0 open"


def test_a_job_without_telemetry(client: httpx.Client, sqlite_store: Store) -> None:
    job_id = submit(client)
    Worker.started(client, claim(sqlite_store)).report(epoch_record(1)).raise_for_status()
    assert client.get(f"/v1/jobs/{job_id}/layers").json() == {"job_id": job_id, "items": [], "next_cursor": None}
    assert client.get(f"/v1/jobs/{job_id}/layers?format=csv").text.count("\r\n") == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("first_epoch=0", "first_epoch"),
        ("trial=0", "trial"),
        ("limit=1001", "limit"),
        ("cursor=nonsense", "cursor"),
        ("label=adam", "label"),
        ("method=stpt", "method"),
        ("format=pdf", "format"),
        ("layers=0.weight", "layers"),
    ],
)
def test_wrong_queries(client: httpx.Client, job_id: str, query: str, field: str) -> None:
    response = client.get(f"/v1/jobs/{job_id}/layers?{query}")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)


def test_no_job(client: httpx.Client) -> None:
    assert client.get("/v1/jobs/job-0/layers").json()["code"] == "not_found"
    assert client.get("/v1/jobs/job-0/layers?format=png").status_code == 404


def test_the_fullest_record_fits(client: httpx.Client, sqlite_store: Store) -> None:
    submit(client, telemetry={"every": 1}, name="full")
    worker = Worker.started(client, claim(sqlite_store))
    values = [[1.23456e-5] * 20] * 1000
    names = [f"features.{n}.convolution.weight" for n in range(1000)]
    full = layers(1, names=names, lwn=values, lgn=values, trust_ratio=values)
    branch = epoch_record(1)["branches"][0]
    lost = [branch | {"number": n, "state": "lost", "learning_rate": 0.123456789012345} for n in range(1, 82 * 11)]
    record = epoch_record(1, layers=full, branches=[*lost, branch | {"number": 82 * 11}])
    assert worker.report(record).status_code == 200
