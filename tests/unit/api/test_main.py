"""How the service starts, and how it does not; a real one: tests/e2e."""

import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from api import __main__ as service
from api.gate import Gate
from service.access import keys
from service.settings import Settings
from service.store.engine import Store

pytest_plugins = ["tests.databases"]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"FORERUN_{field.upper()}", raising=False)
    monkeypatch.setenv("FORERUN_HOME", str(tmp_path / "deep" / "home"))
    monkeypatch.setenv("FORERUN_PORT", "18000")
    monkeypatch.setattr(service, "configure_logging", lambda *_: None)  # pytest's stays
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path / "deep" / "home"
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("PORT", "http", "FORERUN_PORT = 'http' cannot be used: Input should be a valid integer"),
        (
            "MAX_CONNECTIONS",
            "9",
            "FORERUN_MAX_CONNECTIONS = '9' cannot be used: Input should be greater than or equal to",
        ),
        ("RAY_ADDRESS", "head:8265", "FORERUN_RAY_ADDRESS = 'head:8265' cannot be used: must be a URL like http://"),
        ("LOG_LEVEL", "loud", "FORERUN_LOG_LEVEL = 'LOUD' cannot be used: Input should be 'DEBUG', 'INFO'"),
        (
            "WEBHOOK_HOSTS",
            "hooks.example/x",
            "FORERUN_WEBHOOK_HOSTS = 'hooks.example/x' cannot be used: must be a host",
        ),
        ("LOG_FORMAT", "xml", "FORERUN_LOG_FORMAT = 'xml' cannot be used: Input should be 'json' or 'text'"),
        ("HOST", "no such host", "FORERUN_HOST = 'no such host' cannot be used: [Errno -"),
        ("HOST", "192.0.2.1", "FORERUN_HOST = '192.0.2.1' cannot be used: [Errno 99] Cannot assign"),
        ("HOME", "/dev/null/home", "FORERUN_HOME = '/dev/null/home' cannot be used: [Errno 17] File exists"),
        ("DATABASE_URL", "mysql://u:s3cret@db/x", "FORERUN_DATABASE_URL cannot be used: must be a URL like sqlite:"),
        ("DATABASE_URL", "postgresql://u:s3cret@h:port/x", "FORERUN_DATABASE_URL cannot be used: "),
        ("DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:9/x", "FORERUN_DATABASE_URL cannot be used: connection"),
        ("DATABASE_URL", "sqlite:////dev/null/x.db", "FORERUN_DATABASE_URL cannot be used: "),
        ("AUTH", "maybe", "FORERUN_AUTH = 'maybe' cannot be used: Input should be 'auto', 'keys' or 'open'"),
        ("KEY_RATE", "often", "FORERUN_KEY_RATE = 'often' cannot be used: must be a rate like 100/second"),
        ("HOST", "0.0.0.0", "FORERUN_HOST = '0.0.0.0' cannot be used: whoever reaches it could do everything, as"),
    ],
)
def test_a_setting_that_cannot_be_used_ends_it_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, value: str, line: str
) -> None:
    monkeypatch.setenv(f"FORERUN_{setting}", value)
    with pytest.raises(SystemExit) as caught:
        service.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"forerun: {line}")
    assert error.count("\n") == 1
    assert "s3cret" not in error


def test_every_setting_that_is_wrong_has_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORERUN_PORT", "http")
    monkeypatch.setenv("FORERUN_POLL_SECONDS", "0")
    with pytest.raises(SystemExit):
        service.main()
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        "FORERUN_PORT",
        "FORERUN_POLL_SECONDS",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ray_starts_ends_it_in_order(
    monkeypatch: pytest.MonkeyPatch, home: Path, number: signal.Signals
) -> None:
    monkeypatch.setattr(service, "EmbeddedHead", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as caught:
        service.main()
    assert caught.value.code is None
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (home.parent, home)] == [0o700, 0o700]


def test_beyond_this_machine_it_starts_with_a_key_alone_or_where_told_to(sqlite_store: Store) -> None:
    def gate(**settings: str) -> Gate:
        return service._gate(Settings(**settings), sqlite_store, "forerun")  # type: ignore[arg-type]

    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"):
        assert gate(host=host).is_open(sqlite_store)
    for host in ("0.0.0.0", "::", "", "192.168.1.2", "example.org", "localhost.example.org"):
        with pytest.raises(SystemExit) as caught:
            gate(host=host)
        assert caught.value.code == 2
        assert gate(host=host, auth="open").is_open(sqlite_store)
        assert not gate(host=host, auth="keys").is_open(sqlite_store)
    made, _ = keys.create_key(sqlite_store, "root", scope="admin")
    assert not gate(host="0.0.0.0").is_open(sqlite_store)
    assert not gate().is_open(sqlite_store)
    keys.revoke_key(sqlite_store, made.id)
    assert not gate().is_open(sqlite_store)  # once closed, it does not open again by itself
    with pytest.raises(SystemExit):
        gate(host="0.0.0.0")


def test_the_remedy_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORERUN_HOST", "0.0.0.0")
    with pytest.raises(SystemExit):
        service.main()
    told = capsys.readouterr().err
    assert "keys create OWNER --scope admin --local`, or let everybody in with FORERUN_AUTH=open" in told
    assert told.count("\n") == 1


def test_traces_take_an_extra(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "api.tracing", raising=False)
    with pytest.raises(SystemExit, match="2"):
        service._traced(FastAPI(), sqlite_store, "http://127.0.0.1:4318")
    assert (
        "FORERUN_OTLP_ENDPOINT = 'http://127.0.0.1:4318' cannot be used: it takes the extra" in capsys.readouterr().err
    )
