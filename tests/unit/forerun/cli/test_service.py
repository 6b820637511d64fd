import json
import os
import sys
from pathlib import Path

import pytest

from tests.unit.forerun.cli.command_line import SPEC, Forerun
from tests.unit.forerun.service_double import answer, planned


def test_plan(forerun: Forerun, spec_file: Path) -> None:
    plan = planned()
    result = forerun("plan", str(spec_file), answers=[answer(plan)])
    assert result.stdout.splitlines()[0] == "an epoch: 20 iterations"
    assert json.loads(forerun.script.requests[0].content) == SPEC
    assert json.loads(forerun("plan", str(spec_file), "--json", answers=[answer(plan)]).stdout) == plan


def test_serve_becomes_the_service(forerun: Forerun, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: calls.append((path, words)))
    assert forerun("serve").exit_code == 0
    assert calls == [(sys.executable, [sys.executable, "-P", "-m", "api", "forerun"])]


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_the_service_without_its_extra_says_what_to_install(
    forerun: Forerun, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("forerun.demo.find_spec", lambda name: None if name == "ray" else name)
    result = forerun(command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("forerun: the service needs ray: pip install 'forerun[server,worker]'")


def test_a_demo_without_the_examples_wants_a_spec(
    forerun: Forerun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("forerun.cli.service.EXAMPLE", tmp_path / "none.yaml")
    result = forerun("demo")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "name a spec" in result.stderr
