from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from forerun.cli import app
from tests.unit.forerun.cli.command_line import Forerun
from tests.unit.forerun.service_double import answer, problem


def test_the_url_comes_from_the_option_or_the_environment(forerun: Forerun) -> None:
    page = {"items": [], "next_cursor": None}
    forerun("jobs", answers=[answer(page)], env={"FORERUN_URL": "http://one:1"})
    assert forerun.script.requests[0].url.netloc == b"one:1"
    forerun("--url", "http://two:2", "jobs", answers=[answer(page)], env={"FORERUN_URL": "http://one:1"})
    assert forerun.script.requests[0].url.netloc == b"two:2"


def test_a_refusal_exits_1_with_a_line_a_field(forerun: Forerun, spec_file: Path) -> None:
    errors = [{"field": "epochs", "value": 0, "message": "too\x1b[2J few"}]
    refusal = problem(422, "invalid_input", "Invalid input", "epochs: too few", errors=errors)
    result = forerun("submit", str(spec_file), answers=[refusal])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "forerun: Invalid input:\n  epochs = 0: too\ufffd[2J few\n"


def test_no_service_exits_1_and_says_how_to_start_it(forerun: Forerun) -> None:
    result = forerun("jobs", answers=[httpx.ConnectError("[Errno 111] Connection refused")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("forerun: no answer from http://127.0.0.1:8000 ([Errno 111] Connection refused);")
    assert "`forerun serve`" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        *("submit", "submit /does/not/exist.yaml", "jobs --limit 0", "results lr-history job-1 --format xml"),
        *(
            "--url nowhere jobs",
            "results comparison job-1 --format pdf",
            "results history --limit 0",
            "results recommendation lenet5",
        ),
    ],
)
def test_wrong_usage_exits_2(forerun: Forerun, words: str) -> None:
    result = forerun(*words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_usage_is_told_in_plain_lines(forerun: Forerun) -> None:
    path = f"/{'long/' * 30}spec\x1b[2J.yaml"
    result = forerun("submit", path)
    usage, hint, _, error = result.stderr.splitlines()
    assert (usage.split()[0], hint) == ("Usage:", "Try 'root submit --help' for help.")
    assert path.partition("\x1b")[0] in error
    assert "\x1b" not in result.stderr


def test_the_shell_completes_commands(forerun: Forerun) -> None:
    env = {"_FORERUN_COMPLETE": "complete_bash", "COMP_WORDS": "forerun results l", "COMP_CWORD": "2"}
    assert CliRunner().invoke(app, [], prog_name="forerun", env=env).stdout.split() == ["lr-history", "layers"]
    env = {"_FORERUN_COMPLETE": "source_zsh"}
    assert "_FORERUN_COMPLETE=complete_zsh" in CliRunner().invoke(app, [], prog_name="forerun", env=env).stdout


def test_version(forerun: Forerun) -> None:
    result = forerun("--version")
    assert (result.exit_code, result.stdout) == (0, f"forerun {version('forerun')}\n")


@pytest.mark.parametrize(
    "command",
    [
        *("", "submit", "jobs", "show", "demo", "serve", "plan", "job", "results", "experiment"),
        *("job submit", "job watch", "job list", "job show", "job cancel", "job logs"),
        *("results lr-history", "results schedule", "results selector-replay", "results trials", "results comparison"),
        *("results study", "results ramp", "results history", "results recommendation", "results layers"),
        "results explain",
        *("experiment list", "experiment run"),
    ],
)
def test_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="forerun")
    assert result.exit_code == 0
    assert result.stdout.split()[:2] == ["Usage:", "forerun"]


def test_the_help_of_the_whole_names_the_groups_and_no_command_that_moved() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    listed = [line.split()[1] for line in text.splitlines() if line.startswith("│ ")]
    assert set(listed) >= {"job", "results", "experiment", "submit", "jobs", "show", "plan", "serve", "demo"}
    assert not set(listed) & {"watch", "lr-history", "schedule"}


def test_an_error_of_our_own_is_not_hidden(forerun: Forerun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forerun.display.tables.job_table", lambda jobs: 1 / 0)
    result = forerun("jobs", answers=[answer({"items": [], "next_cursor": None})])
    assert isinstance(result.exception, ZeroDivisionError)
