"""The demo, with a process in place of the service that behaves as each test wants it to."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from forerun import cli, demo, exchange

FAKE = [sys.executable, "-m", "tests.unit.forerun.fake_service"]
ROOT = cli.EXAMPLE.parents[1]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "of the demo"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "POLL_S", 0.01)
    monkeypatch.setattr(exchange, "PAUSES", (0.0, 0.0))


def run(mode: str, home: Path, patch: pytest.MonkeyPatch, *words: str) -> Result:
    patch.chdir(ROOT)  # where the fake is found
    patch.setattr(demo, "COMMAND", [*FAKE, mode])
    return CliRunner().invoke(cli.app, ["demo", *words], env={"FORERUN_HOME": str(home), "COLUMNS": "80"})


def assert_ended(home: Path) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(int((home / "process").read_text()), 0)


def test_a_demo_from_start_to_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("succeeds", home, monkeypatch)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    ready = json.loads((home / "service.json").read_text())
    assert lines[:-1] == [
        f"Starting the service; its files and its log are in {home} …",
        f"API              {ready['url']}/docs",
        f"Ray's dashboard  http://ray.test:8265 (its token is in {home}/ray-token)",
        "job-1: lenet5 on digits, 2 workers, batch 64, seed 0",
        "epoch  phase   learning rate  val acc  test acc   seconds",
        "    each branch: learning rate val_accuracy (* chosen)",
        "queued",
        "running",
        "  1/3  stpt              0.1   0.7500    0.7000       2.5",
        "    *0.1 0.5000",
        "succeeded",
        "Ending the service …",
        "Test accuracy 0.9375 after 3 epochs in 0 s.",
        f"To see it again: FORERUN_HOME='{home}' forerun serve",
        f"      and then:  {ready['url']}/v1/jobs/job-1",
    ]
    found = json.loads(lines[-1])
    assert 0 <= found.pop("seconds") < 30
    assert found == {"job_id": "job-1", "test_accuracy": 0.9375, "lr_history": [0.005, 0.1]}
    assert json.loads((home / "spec.json").read_text()) == cli.read_spec(cli.EXAMPLE)
    assert not (home / "cancelled").exists()
    assert_ended(home)


def test_the_spec_may_be_another_one(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("epochs: 3\n")
    assert run("succeeds", home, monkeypatch, str(tmp_path / "mine.yaml")).exit_code == 0
    assert json.loads((home / "spec.json").read_text()) == {"epochs": 3}


def test_the_service_of_the_demo_is_not_that_of_the_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in demo.NOT_OURS:
        monkeypatch.setenv(name, "the user's")
    monkeypatch.setenv("FORERUN_DATA_DIR", "/somewhere")
    run("succeeds", home, monkeypatch)
    settings = json.loads((home / "settings.json").read_text())
    assert settings["FORERUN_HOME"] == str(home)
    assert settings["FORERUN_DATA_DIR"] == "/somewhere"
    assert not set(demo.NOT_OURS) & set(settings)


def test_a_job_that_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("fails", home, monkeypatch)
    assert result.exit_code == 1
    assert result.stderr == "forerun: job-1 failed (diverged): every branch diverged\n"
    assert result.stdout.splitlines()[-2:] == ["failed", "Ending the service …"]
    assert_ended(home)


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("broken", "the service ended with exit code 3"),
        ("dies", "the service ended with exit code -9"),
    ],
)
def test_a_service_that_fails_shows_the_end_of_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: str, why: str
) -> None:
    result = run(mode, home, monkeypatch)
    assert result.exit_code == 1
    assert f"forerun: {why}; the end of its log, {home}/service.log:\n" in result.stderr
    assert f"  the fake service is {mode}\n" in result.stderr
    assert_ended(home)


def test_a_service_that_is_not_ready_in_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(demo.subprocess, "Popen", Recorded)
    monkeypatch.setattr(demo, "START_S", 0.0)
    result = run("slow", home, monkeypatch)
    assert result.exit_code == 1
    assert "forerun: the service was not ready within 0 s; " in result.stderr
    assert [process.returncode for process in started] == [-signal.SIGTERM]


def test_a_service_that_does_not_end_is_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STOP_S", 0.1)
    result = run("stubborn", home, monkeypatch)
    assert (result.exit_code, json.loads(result.stdout.splitlines()[-1])["job_id"]) == (0, "job-1")
    assert_ended(home)


def test_what_a_killed_service_left_is_not_taken_for_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "service.json").write_text(json.dumps({"pid": 1, "url": "http://127.0.0.1:1"}))
    assert run("succeeds", home, monkeypatch).exit_code == 0
    (home / "service.json").write_text(json.dumps({"pid": 1, "url": "http://127.0.0.1:1"}))
    assert run("broken", home, monkeypatch).exit_code == 1
    assert not (home / "service.json").exists()


def test_a_service_that_runs_in_the_same_home_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "service.json").write_text("{}")
    with FileLock(home / "service.lock"):
        result = run("succeeds", home, monkeypatch)
    assert result.exit_code == 1
    assert result.stderr == f"forerun: a service runs in {home} already; end it, or choose another --home\n"
    assert (home / "service.json").read_text() == "{}"
    assert not (home / "process").exists()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)])
def test_an_interrupted_demo_cancels_its_job_and_ends_its_service(home: Path, sent: signal.Signals, code: int) -> None:
    program = f"from forerun import cli, demo; demo.COMMAND = {[*FAKE, 'hangs']!r}; cli.app()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "demo", "--home", str(home)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert any(line == "    *0.1 0.5000\n" for line in process.stdout)
            process.send_signal(sent)
            out, err = process.communicate(timeout=30)
        finally:
            process.terminate()  # when the test failed; otherwise it has ended
    assert (process.returncode, err) == (code, "")
    assert out.endswith("Ending the service …\n")
    assert (home / "cancelled").exists()
    assert_ended(home)
