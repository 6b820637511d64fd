"""Whatever a request names, nothing is read but what the service has: 300 strings that would lead elsewhere, in every
parameter of every route and in every text of a spec, while each file and folder that the process opens is looked at."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from api.deps import Services
from service.store.engine import Store
from tests.builders import run_to_success, spec_document

pytest_plugins = ["tests.databases"]

SECRET = "the-secret-outside"
UPS = ["../", "..\\", "....//", "..%2f", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..%c0%af", ".%00./", "..;/"]
TARGETS = ["outside/secret", "outside", "etc/passwd", "proc/self/environ", "home/ray-token", "forerun.db"]
DEPTHS = (1, 2, 3, 6)
WHOLE = [  # absolute, of other schemes, of other systems, through links
    *(f"/{target}" for target in TARGETS),
    *(f"//{target}" for target in TARGETS),
    *(f"file:///{target}" for target in TARGETS),
    *(f"~/{target}" for target in TARGETS),
    *(f"./../{target}" for target in TARGETS),
    *(f"trees/../../{target}" for target in TARGETS),
    *(f"C:\\{target}" for target in TARGETS),
    *(f"\\\\host\\{target}" for target in TARGETS),
    *(f"{target}\x00.png" for target in TARGETS),
    *(f"../{target}\n" for target in TARGETS),
    *(f"$HOME/{target}" for target in TARGETS),
    *(f"link-out/{target}" for target in TARGETS),
    *(f"trees/link-out/{target}" for target in TARGETS),
    *(f"link-out/../{target}" for target in TARGETS),
    *(f"link-to-root/{target}" for target in TARGETS),
    *("..", "../", "/", ".", "./", "...", "link-out", "link-to-root", "trees/link-out", "link-to-root/tmp"),
    *("/dev/zero", "/dev/stdin", "/proc/1/root", "|id", "$(id)", "`id`", "*", "[a-z]", "{a,b}", "%s%n"),
    *("\u2025/outside", "\uff0e\uff0e/outside", "..\u2215outside", "..\u2044outside", "\u202e../outside"),
    *("../" * 500 + "etc/passwd", "a/" * 100 + "../" * 101 + "outside", "..", "../..", "../../.."),
]
STRINGS = [up * depth + target for up in UPS for depth in DEPTHS for target in TARGETS] + WHOLE
METHODS = ("get", "post", "patch", "delete")


def test_there_are_three_hundred() -> None:
    assert len(set(STRINGS)) >= 300


_opened: list[str] | None = None  # by what is looked at; an audit hook stays for the life of the process


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _opened is not None and event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str | bytes):
        _opened.append(os.fsdecode(args[0]))


sys.addaudithook(_hook)


@contextmanager
def looking_at_files() -> Iterator[list[str]]:
    """Enter with the list of what the process opens or lists until the end."""
    global _opened
    _opened = found = []
    try:
        yield found
    finally:
        _opened = None


@pytest.fixture
def root(services: Services, tmp_path: Path) -> Path:
    """The data folder with a tree of images, and links out of it to another one."""
    for folder in (services.data_dir / "trees", tmp_path / "outside"):
        for part in ("train", "test"):
            (folder / part / "owl").mkdir(parents=True)
            for number in range(200):
                (folder / part / "owl" / f"{number}.png").write_text(SECRET)
    (tmp_path / "outside" / "secret").write_text(SECRET)
    for link in ("link-out", "trees/link-out", "trees/train/owl/link-out"):
        (services.data_dir / link).symlink_to(tmp_path / "outside")
    (services.data_dir / "link-to-root").symlink_to("/")
    return tmp_path


def allowed(path: str, services: Services, root: Path) -> bool:
    """Whether the service may open it: its database, its data and its jobs, and what Python imports."""
    of_python = [sys.prefix, sys.base_prefix, *map(str, sysconfig.get_paths().values()), str(Path(__file__).parents[2])]
    real = Path(os.path.realpath(path))
    ours = [services.data_dir, services.storage_dir, *root.glob("*.db*"), *of_python]
    return any(real.is_relative_to(os.path.realpath(one)) for one in ours)


def is_secret(answer: httpx.Response) -> bool:
    return SECRET in answer.text or "root:x:0" in answer.text or "PATH=" in answer.text


def requests(client: httpx.Client, job_id: str) -> list[tuple[str, str, dict[str, Any], str, str]]:
    """Each (method, path, fixed query parameters, where, name) whose parameter `name` a string is put into."""
    found = []
    for path, item in client.get("/openapi.json").json()["paths"].items():
        for method in (method for method in METHODS if method in item):
            named = [(one["in"], one["name"]) for one in item[method].get("parameters", ())]
            for where, name in {*named} - {("path", "epoch")}:
                found.append((method, path, {}, where, name))
    assert ("get", "/v1/jobs/{job_id}/weights", {}, "query", "label") in found
    return sorted(found, key=str)


def test_no_route_reads_what_a_parameter_leads_to(
    client: httpx.Client, services: Services, sqlite_store: Store, root: Path
) -> None:
    """A string each time for each parameter, in turn: each string meets several routes, and each route many strings."""
    job_id = run_to_success(client, sqlite_store)
    places = requests(client, job_id)
    with looking_at_files() as opened:
        for number, string in enumerate(STRINGS):
            for method, path, query, where, name in places[number % 20 :: 20]:
                ids = {"job_id": job_id, "epoch": "1", "key_id": "none", "webhook_id": "none"}
                filled = {key: quote(string, safe="") if (where, name) == ("path", key) else ids[key] for key in ids}
                header = {name: quote(string)} if where == "header" else {}
                answer = client.request(
                    method,
                    path.format(**filled),
                    params=query | ({name: string} if where == "query" else {}),
                    headers={"Content-Type": "application/json"} | header,
                )
                assert answer.status_code < 500, (method, path, name, string)
                assert not is_secret(answer), (method, path, name, string)
            for prefix in ("/docs/assets/", "/"):
                answer = client.get(prefix + quote(string, safe=""))
                assert answer.status_code < 500, (prefix, string)
                assert not is_secret(answer), (prefix, string)
    assert [path for path in opened if not allowed(path, services, root)] == []


def test_no_spec_reads_what_its_texts_lead_to(client: httpx.Client, services: Services, root: Path) -> None:
    folder = {"name": "image-folder", "path": "trees", "image_size": 32}
    fits = spec_document(dataset=folder, model="resnet18-cifar", global_batch_size=16)
    assert client.post("/v1/jobs", json=fits).status_code == 422  # for the link in it
    (services.data_dir / "trees" / "train" / "owl" / "link-out").unlink()
    assert client.post("/v1/jobs", json=fits).status_code == 202
    with looking_at_files() as opened:
        for number, string in enumerate(STRINGS):
            for route in ("/v1/jobs", "/v1/plan"):
                answer = client.post(route, json=fits | {"dataset": folder | {"path": string}})
                assert answer.status_code == 422, string
                assert answer.json()["errors"][0]["field"] == "dataset.path"
                assert not is_secret(answer)
            texts = [{key: string} for key in ("model", "preset", "optimizer", "lr_set", "task", "dataset")]
            texts += [{"methods": [string]}, {"methods": [{"name": "replay", "job": string}]}]
            answer = client.post("/v1/jobs", json=fits | texts[number % len(texts)])
            assert (answer.status_code, is_secret(answer)) == (422, False), (texts[number % len(texts)], string)
            request = {
                "name": "alpha-sweep",
                "spec": {"dataset": folder | {"path": string}},
                "experiment": string[:100],
            }
            answer = client.post("/v1/experiments", json=request)
            assert (answer.status_code, is_secret(answer)) == (422, False), string
    assert [path for path in opened if not allowed(path, services, root)] == []
    assert any("trees" in path for path in opened) is False  # nothing was even listed
