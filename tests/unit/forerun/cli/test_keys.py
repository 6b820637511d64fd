import json
import stat
import subprocess
import sys
from contextlib import closing, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from api import local_keys
from service.access import keys
from service.errors import NotAuthenticated
from service.store.engine import Store
from tests.unit.forerun.cli.command_line import Forerun
from tests.unit.forerun.service_double import Document, answer, problem

KEY = "frn_3f9c0a51d2e8_" + 43 * "x"


def api_key(**changes: object) -> Document:
    known: Document = {"id": "3f9c0a51d2e8", "prefix": "frn_3f9c0a51d2e8", "owner": "alice", "name": "lap\x1btop"}
    known |= {"scope": "submit", "created_at": "2026-01-01T12:00:00Z", "expires_at": None, "last_used_at": None}
    return known | {"revoked_at": None} | changes


def test_a_key_is_printed_once_and_alone(forerun: Forerun) -> None:
    result = forerun("keys", "create", "alice", "--scope", "read", answers=[answer(api_key(key=KEY), 201)])
    assert result.stdout == f"{KEY}\n"
    assert "only time that the key is shown" in result.stderr
    [request] = forerun.script.requests
    wanted = {"owner": "alice", "name": "", "scope": "read", "expires_at": None}
    assert (request.method, request.url.path, json.loads(request.content)) == ("POST", "/v1/keys", wanted)


def test_keys_are_listed_without_what_commands_a_terminal(forerun: Forerun) -> None:
    result = forerun("keys", "list", answers=[answer({"items": [api_key()]})])
    assert result.stdout.splitlines() == [
        "key               owner  scope   made              ends  last used  revoked  name",
        "frn_3f9c0a51d2e8  alice  submit  2026-01-01 12:00                            lap\ufffdtop",
    ]


def test_a_key_is_revoked(forerun: Forerun) -> None:
    revoked = api_key(revoked_at="2026-01-02T12:00:00Z")
    assert forerun("keys", "revoke", "frn_3f9c0a51d2e8", answers=[answer(revoked)]).stdout == (
        "frn_3f9c0a51d2e8 of alice revoked\n"
    )
    assert forerun.script.asked == ["DELETE /v1/keys/frn_3f9c0a51d2e8"]


def test_whoami(forerun: Forerun) -> None:
    me = {"owner": None, "scope": "admin", "keys_required": False}
    assert forerun("keys", "whoami", answers=[answer(me)]).stdout == (
        "nobody, scope admin (the service asks for no key: everybody may do everything)\n"
    )


def test_the_key_comes_from_a_file_or_the_environment_and_is_never_shown(forerun: Forerun, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    page = {"items": [], "next_cursor": None}
    refusal = problem(401, "not_authenticated", "No valid API key", "this is no API key of this service")
    for words, env in [
        ([], {"FORERUN_API_KEY": KEY}),
        (["--api-key-file", str(file)], {"FORERUN_API_KEY": "other"}),
        ([], {"FORERUN_API_KEY_FILE": str(file)}),
    ]:
        result = forerun(*words, "jobs", answers=[answer(page)], env=env)
        assert [request.headers["Authorization"] for request in forerun.script.requests] == [f"Bearer {KEY}"]
        assert KEY not in result.output
        result = forerun(*words, "jobs", answers=[refusal], env=env)
        assert (result.exit_code, result.stderr) == (1, "forerun: this is no API key of this service\n")
    assert forerun("jobs", answers=[answer(page)]).exit_code == 0
    assert "Authorization" not in forerun.script.requests[0].headers


def test_what_can_be_no_key_is_refused_without_being_repeated(forerun: Forerun, tmp_path: Path) -> None:
    file = tmp_path / "key"
    for content in ("secret one", "sécret", "secret\nsecret"):
        file.write_text(content)
        result = forerun("--api-key-file", str(file), "jobs")
        assert result.exit_code == 2
        assert "this cannot be an API key" in result.stderr
        assert "cret" not in result.output
    assert forerun("--api-key-file", str(tmp_path / "none"), "jobs").exit_code == 2


def test_the_first_key_is_made_in_the_database_of_a_home(tmp_path: Path) -> None:
    """As a process, as an operator calls it."""
    home = tmp_path / "deep" / "home"
    command = [sys.executable, "-c", "from forerun.cli import app; app()", "keys", "create", "root", "--local"]
    env = {"FORERUN_HOME": str(home), "PATH": "", "PYTHONPATH": str(Path.cwd())}
    made = subprocess.run(
        [*command, "--scope", "admin", "--days", "7"], capture_output=True, text=True, env=env, check=False
    )
    assert made.returncode == 0, made.stderr
    text = made.stdout.strip()
    assert text not in made.stderr
    assert text not in (home / "forerun.db").read_bytes().decode("latin-1")
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (home.parent, home)] == [0o700, 0o700]
    with closing(Store(f"sqlite:///{home / 'forerun.db'}")) as store:
        assert (keys.key_of(store, text).owner, keys.key_of(store, text).scope) == ("root", "admin")


def test_keys_in_the_database_are_listed_and_revoked(
    forerun: Forerun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORERUN_HOME", str(tmp_path))

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        status = 0
        with redirect_stdout(StringIO()) as out:
            try:
                local_keys.main(*command[4:])
            except SystemExit as error:
                status = int(error.code or 0)
        return subprocess.CompletedProcess(command, status, out.getvalue())

    monkeypatch.setattr(subprocess, "run", run)
    text = forerun("keys", "create", "alice", "--local").stdout.strip()
    assert f"{text[:16]}  alice  submit" in forerun("keys", "list", "--local").stdout
    assert text[17:] not in forerun("keys", "list", "--local", "--json").output
    assert forerun("keys", "revoke", text[:16], "--local").stdout == f"{text[:16]} of alice revoked\n"
    store = Store(f"sqlite:///{tmp_path / 'forerun.db'}")
    with closing(store), pytest.raises(NotAuthenticated, match="was revoked"):
        keys.key_of(store, text)
    for words, told in [
        (("create", "no owner"), 'forerun: Invalid input:\n  owner = "no owner": '),
        (("revoke", "none"), "forerun: there is no API key none; "),
    ]:
        refused = forerun("keys", *words, "--local")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.startswith(told)
