"""The catalog, health, readiness and the documentation pages."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.deps import Services
from service.cluster.base import Capacity
from service.spec.catalog import MODELS
from service.spec.experiments import EXPERIMENTS
from service.store.engine import Store
from tests.builders import spec_document
from tests.contract.conftest import FakeFleet

pytest_plugins = ["tests.databases"]


def test_catalog(client: httpx.Client) -> None:
    catalog = client.get("/v1/catalog").json()
    assert catalog["models"] == list(MODELS)
    assert catalog["datasets"][0] == {
        "name": "digits",
        "train_samples": 1437,
        "test_samples": 360,
        "classes": 10,
        "channels": 1,
        "image_size": 28,
        "can_download": False,
    }
    presets = {preset["name"]: preset for preset in catalog["lr_sets"]}
    assert presets["narrow"]["factors"] == [1.25, 1.17, 1.08, 1, 0.95, 0.9, 0.85, 0.8]
    assert presets["narrow"]["phases"] is None
    assert presets["mix"]["factors"] is None
    assert presets["mix"]["phases"] == [  # Yamada et al., Table 4: epochs 19, 29 and 40 of 40
        {"lr_set": "narrow", "until": 0.475},
        {"lr_set": "middle", "until": 0.725},
        {"lr_set": "wide", "until": 1.0},
    ]
    assert catalog["optimizers"] == [
        "sgd", "adam", "adamw", "adagrad", "adadelta", "rmsprop", "lars", "lamb", "tvlars",
    ]  # fmt: skip
    assert catalog["tasks"] == ["classification", "barlow-twins"]
    assert catalog["metrics"] == ["val_accuracy", "val_loss", "train_accuracy"]
    assert catalog["selectors"] == ["greedy", "tolerance"]
    assert catalog["methods"] == [
        "stpt", "sweep", "reference", "replay", "cosine", "linear", "wsd", "one-cycle", "lr-range-test", "autolrs",
        "schedule-free", "prodigy", "prodigy-schedule-free", "dog", "d-adaptation", "mechanic", "polling",
        "fixed", "random", "grid", "tpe", "smac", "hyperband", "asha", "bohb", "pbt", "pb2", "study", "batch-ramp",
    ]  # fmt: skip
    assert catalog["presets"] == ["stpt-paper", "stpt-paper-fashion-mnist", "stpt-paper-cifar10"]
    assert catalog["experiments"] == list(EXPERIMENTS)


@pytest.mark.parametrize("field", ["model", "dataset", "lr_set", "task", "optimizer", "metric", "selector"])
def test_everything_in_the_catalog_may_be_asked_for(services: Services, field: str) -> None:
    with TestClient(create_app(replace(services, data_is_local=False))) as client:
        catalog = client.get("/v1/catalog").json()
        large = {"dataset": {"name": "image-folder", "path": "birds"}} if field == "model" else {}  # 224 pixels
        for entry in catalog[f"{field}s"][:20]:
            name = entry if isinstance(entry, str) else entry["name"]
            assert client.post("/v1/jobs", json=spec_document(**large, **{field: name})).status_code == 202, name


def test_health(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_ready(client: httpx.Client, fleet: FakeFleet) -> None:
    ray = {"dashboard_url": "http://ray.test:8265", "trouble": None, "cpus": None, "gpus": None}
    leadership = {"leads": True, "url": "http://forerun.test:8000"}
    assert client.get("/readyz").json() == {"status": "ready", "leadership": leadership, "ray": ray}
    fleet.capacity = Capacity(cpus=8, gpus=0.5)
    assert client.get("/readyz").json()["ray"] == ray | {"cpus": 8, "gpus": 0.5}


def test_readiness_is_asked_often_and_logs_nothing(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        client.get("/readyz")
    assert [record.name for record in caplog.records if record.name != "httpx"] == []


def test_ready_without_ray(client: httpx.Client, fleet: FakeFleet) -> None:
    fleet.trouble = "connection refused"
    response = client.get("/readyz")
    assert (response.status_code, response.json()["ray"]["trouble"]) == (200, "connection refused")


def unready(services: Services, store: Store) -> str:
    with TestClient(create_app(replace(services, store=store))) as client:
        assert client.get("/healthz").status_code == 200
        response = client.get("/readyz")
    store.close()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    return str(response.json()["detail"])


def test_not_ready_before_the_migrations(services: Services, tmp_path: Path) -> None:
    assert "migrate" in unready(services, Store(f"sqlite:///{tmp_path / 'empty.db'}"))


def test_not_ready_on_an_older_schema(services: Services, sqlite_store: Store) -> None:
    with sqlite_store.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
        connection.commit()
    assert "migrate" in unready(services, sqlite_store)


def test_not_ready_without_a_database(services: Services, tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    detail = unready(services, Store(f"sqlite:///{tmp_path / 'folder.db'}"))
    assert "does not answer" in detail
    assert str(tmp_path) not in detail


def test_documentation_comes_from_here_alone(client: httpx.Client) -> None:
    response = client.get("/docs")
    assert response.headers["Content-Type"].startswith("text/html")
    assert "/openapi.json" in response.text
    links = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    assert links == [
        "/docs/assets/swagger-ui.css",
        "/docs/assets/favicon-32x32.png",
        "/docs/assets/swagger-ui-bundle.js",
    ]
    assert "://" not in response.text
    kinds = [client.get(link).headers["Content-Type"].partition(";")[0] for link in links]
    assert kinds == ["text/css", "image/png", "text/javascript"]
    assert client.get("/redoc").status_code == client.get("/docs/assets/none").status_code == 404
