"""The deployment files name settings, commands and packages that exist."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
SETTINGS = {f"FORERUN_{name.upper()}" for name in Settings.model_fields}


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.mark.parametrize("path", ["docker-compose.yml", "docker/Dockerfile", "docs/operations.md"])
def test_only_settings_that_exist_are_named(path: str) -> None:
    named = set(re.findall(r"FORERUN_[A-Z_]+", (ROOT / path).read_text()))
    assert named
    of_clients = {"FORERUN_URL", "FORERUN_API_KEY"}
    assert named <= SETTINGS | of_clients | {"FORERUN_REQUIRE_DATA"}


def test_compose_publishes_on_loopback_alone() -> None:
    published = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_has_every_package() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = set(re.findall(r"^COPY (\w+) \w+$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE))
    assert copied == set(packages["packages"])


def test_every_file_is_on_the_map() -> None:
    the_map = (ROOT / "docs" / "architecture.md").read_text()
    folders = ("api", "forerun", "service", "workers")
    files = [path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    missing = [str(path) for path in files if path.name != "__init__.py" and str(path) not in the_map]
    assert not missing


def test_the_lock_has_what_every_extra_wants_and_the_core_is_light() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    core, server, worker = (
        {re.split(r"[\[>=]", requirement)[0] for requirement in requirements}
        for requirements in (project["dependencies"], extras["server"], extras["worker"])
    )
    locked = set(re.findall(r"^([a-z0-9-]+)(?:\[.+\])?==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert core | server | worker <= locked
    assert not core & (server | worker)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_pin_with_hashes_and_name_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    requirements = re.findall(r"^[a-z0-9][^\n]*", text, re.MULTILINE)
    assert len(requirements) > 100
    assert all("==" in requirement for requirement in requirements)
    assert text.count("--hash=sha256:") >= len(requirements)
