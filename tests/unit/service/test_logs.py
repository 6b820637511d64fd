"""The log, as JSON and as text."""

import json
import logging
import threading
import warnings

import pytest
from structlog.contextvars import bound_contextvars

from service.logs import Style, configure_logging, printable
from tests.logging_output import log_output

log = logging.getLogger("forerun.test")


def test_an_event_as_json() -> None:
    with log_output("json") as output, bound_contextvars(job="job-1", attempt=2):
        log.warning("lost: %s", "its node")
    (line,) = output.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "lost: its node",
        "level": "warning",
        "logger": "forerun.test",
        "job": "job-1",
        "attempt": "2",
    }


def test_an_event_as_text() -> None:
    with log_output("text") as output, bound_contextvars(job="job-1", attempt=2):
        log.warning("lost: %s", "its node")
    (line,) = output.getvalue().splitlines()
    assert line.partition(" ")[2] == "warning forerun.test lost: its node  attempt=2  job=job-1"


def test_what_was_bound_is_gone_behind_its_block() -> None:
    with log_output("json") as output:
        with bound_contextvars(job="job-1"):
            pass
        log.info("nothing")
    assert "job" not in json.loads(output.getvalue())


@pytest.mark.parametrize(("terminal", "begins"), [(True, "2"), (False, "{")])
def test_without_a_style_it_is_text_on_a_terminal_and_json_elsewhere(terminal: bool, begins: str) -> None:
    with log_output(None, terminal=terminal) as output:
        log.info("begins")
    assert output.getvalue().startswith(begins)


FORGED = "a name\n2026-01-01T00:00:00Z error forerun all is lost\x1b[2J\u2028\r"


@pytest.mark.parametrize("style", ["json", "text"])
def test_what_a_user_wrote_begins_no_line_and_moves_no_cursor(style: Style) -> None:
    with log_output(style) as output, bound_contextvars(job=FORGED):
        log.info("%s", FORGED)
    line = output.getvalue().removesuffix("\n")
    assert line.isprintable()
    if style == "json":
        assert json.loads(line)["event"] == FORGED


def fail() -> None:
    try:
        raise ValueError(f"{FORGED} password=s3cret")
    except ValueError:
        log.exception("it failed")


def test_a_traceback_is_one_event() -> None:
    with log_output("json") as output:
        fail()
    (line,) = output.getvalue().splitlines()
    assert "ValueError: a name" in json.loads(line)["exception"]
    assert "s3cret" not in line


def test_a_traceback_as_text_is_indented() -> None:
    with log_output("text") as output:
        fail()
    first, *rest = output.getvalue().splitlines()
    assert first.endswith("error forerun.test it failed")
    assert len(rest) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert "s3cret" not in output.getvalue()


def test_the_level() -> None:
    with log_output("json", "WARNING") as output:
        log.info("no")
        log.warning("yes")
        logging.getLogger("httpx").info("a request")
    assert json.loads(output.getvalue())["event"] == "yes"


def test_secrets_by_name_and_by_pattern() -> None:
    with log_output("json") as output, bound_contextvars(report_token="abc"):
        log.info("environment %s", {"FORERUN_TICKET": "def"})
    event = json.loads(output.getvalue())
    assert event["report_token"] == "[redacted]"
    assert event["event"] == "environment {'FORERUN_TICKET': '[redacted]'}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_warnings_and_threads_that_end_go_the_same_way() -> None:
    def end() -> None:
        raise RuntimeError("token=s3cret")

    with log_output("json") as output:
        warnings.showwarning("old", DeprecationWarning, "file.py", 1)
        thread = threading.Thread(target=end, name="worker")
        thread.start()
        thread.join()
    warned, ended = map(json.loads, output.getvalue().splitlines())
    assert "DeprecationWarning: old" in warned["event"]
    assert ended["event"] == "the thread worker has ended"
    assert "RuntimeError: token=[redacted]" in ended["exception"]


def test_configured_twice_it_logs_once() -> None:
    with log_output("json") as first:
        configure_logging("INFO", "json", first)
        log.info("once")
    assert json.loads(first.getvalue())["event"] == "once"


def test_printable() -> None:
    assert printable("Größe 学習率 ok") == "Größe 学習率 ok"
    assert printable("a\tb\x00\u202e\ud800") == "a\\tb\\x00\\u202e\\ud800"
