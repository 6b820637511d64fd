"""What keeps a service from starting: locks, and databases that cannot be used. It ends with one line and code 2."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from api.startup import id_of_service, only_service_of, open_database
from migrations import migrate
from service.settings import Settings
from service.store.engine import Store
from tests.databases import Postgres

pytest_plugins = ["tests.databases"]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FORERUN_{name.upper()}", raising=False)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("FORERUN_HOME", str(home))
    return home


def start() -> None:
    with open_database(Settings()):
        pass


def why_not(capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a service ends with which cannot start."""
    with pytest.raises(SystemExit) as caught:
        start()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.strip()


def some_files_of_jobs(home: Path) -> None:
    (home / "jobs" / "job-1" / "checkpoints").mkdir(parents=True)


def test_a_fresh_home_starts_and_starts_again(home: Path) -> None:
    start()
    some_files_of_jobs(home)
    start()


def test_an_empty_folder_of_jobs_is_no_trace_of_any(home: Path) -> None:
    (home / "jobs").mkdir()
    start()


def test_an_empty_file_is_no_database(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "forerun.db").touch()
    assert why_not(capsys) == (
        f"forerun: the database {home / 'forerun.db'} is an empty file, as Forerun never leaves one: restore it from a "
        "copy, or delete it to begin without jobs"
    )
    assert (home / "forerun.db").stat().st_size == 0


@pytest.mark.parametrize("made", [False, True])
def test_a_database_without_tables_where_jobs_were_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], made: bool
) -> None:
    some_files_of_jobs(home)
    if made:
        with sqlite3.connect(home / "forerun.db") as connection:
            connection.execute("CREATE TABLE somebody_elses (x)")
        connection.close()
    assert why_not(capsys) == (
        f"forerun: the database has no tables, but files of jobs lie in {home / 'jobs'}: name their database by "
        "FORERUN_DATABASE_URL or restore it from a copy, or move that folder away to begin without jobs"
    )


def test_postgresql_without_tables_where_jobs_were_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    some_files_of_jobs(home)
    with postgres.database() as store:
        monkeypatch.setenv("FORERUN_DATABASE_URL", store.url.render_as_string(hide_password=False))
        assert "forerun: the database has no tables, but files of jobs lie in" in why_not(capsys)


def spoil_the_header(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"no database at all")


def cut_off(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(5000)


def spoil_the_schema(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(100)
        opened.write(b"\xff" * 3000)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (spoil_the_header, "file is not a database"),
        (cut_off, "malformed"),
        (spoil_the_schema, "malformed"),
    ],
)
def test_a_damaged_database_is_told_of_on_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], damage: object, words: str
) -> None:
    start()
    assert callable(damage)
    damage(home / "forerun.db")
    line = why_not(capsys)
    assert line.startswith(f"forerun: FORERUN_HOME = {str(home)!r} cannot be used: ")
    assert words in line


def make_newer(store: Store) -> None:
    with store.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


def test_a_newer_database_is_told_of_on_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_database(Settings()) as store:
        make_newer(store)
    line = why_not(capsys)
    assert "its schema has the revision 9999, and this version of Forerun knows those up to " in line
    assert line.endswith("; start the newer version that made it, or restore a copy from before")


def test_a_newer_postgresql_is_refused(empty_store: Store) -> None:
    migrate(empty_store)
    make_newer(empty_store)
    with pytest.raises(ValueError, match="the revision 9999"):
        migrate(empty_store)


# --- locks ---------------------------------------------------------------------------------------------------


def test_a_home_is_one_service_s(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_service_of(home), pytest.raises(SystemExit) as caught, only_service_of(home):
        pass
    assert caught.value.code == 2
    line = f"forerun: another service runs with the home {home}; stop it or set FORERUN_HOME\n"
    assert capsys.readouterr().err == line
    with only_service_of(home):
        pass


def test_a_new_home_is_for_its_owner_alone(tmp_path: Path) -> None:
    with only_service_of(tmp_path / "new" / "home"):
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("new", "new/home")] == [0o700, 0o700]


def test_a_home_that_was_open_is_closed(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "forerun.db").touch(0o644)
    (home / "jobs").mkdir(0o755)
    (home / "service.log").touch(0o664)
    (home / "notes").touch(0o644)  # the folder keeps it from others
    (home / "service-id").symlink_to("/etc/hostname")
    home.chmod(0o2775)
    before = Path("/etc/hostname").stat().st_mode
    with only_service_of(home):
        pass
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home, *home.iterdir()) if not path.is_symlink()}
    closed = {"home": 0o700, "forerun.db": 0o600, "jobs": 0o700, "service.log": 0o600}
    assert modes.items() >= (closed | {"notes": 0o644}).items()
    assert Path("/etc/hostname").stat().st_mode == before
    assert caplog.messages == [f"{home} was open to other accounts, and is closed to them now"]
    with only_service_of(home):
        assert len(caplog.messages) == 1


def test_a_folder_of_somebody_else_s_is_not_closed_but_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "thesis.tex").touch()
    home.chmod(0o1777)  # as /tmp
    with pytest.raises(SystemExit) as caught, only_service_of(home):
        pass
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"forerun: FORERUN_HOME = '{home}' cannot be used: other accounts may read it, and it has things that are not "
        f"Forerun's: name a folder of its own, or close it by `chmod 700 {home}`\n"
    )
    assert home.stat().st_mode & 0o7777 == 0o1777
    home.chmod(0o700)
    with only_service_of(home):
        pass


def test_an_open_folder_of_another_account_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    home.chmod(0o775)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(SystemExit) as caught, only_service_of(home):
        pass
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"forerun: FORERUN_HOME = '{home}' cannot be used: other accounts may read it, and one of them owns it: name a "
        "folder in it, which is made for this one alone\n"
    )


def test_an_sqlite_file_is_one_service_s_whatever_it_is_called(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(home)
    with open_database(Settings()):
        monkeypatch.setenv("FORERUN_HOME", str(tmp_path / "another"))
        monkeypatch.setenv("FORERUN_DATABASE_URL", f"sqlite:///{tmp_path / 'link' / 'forerun.db'}")
        assert why_not(capsys) == (
            f"forerun: another service uses the database {home / 'forerun.db'}; stop it, or use PostgreSQL, where one "
            "can stand by"
        )
    start()


def test_a_service_is_known_by_its_home(home: Path, tmp_path: Path) -> None:
    known = id_of_service(home)
    assert len(known) == 32
    assert id_of_service(home) == known
    (tmp_path / "another").mkdir()
    assert id_of_service(tmp_path / "another") != known


# --- as a process ----------------------------------------------------------------------------------------------


def test_as_a_process_it_ends_with_code_2_and_one_line(home: Path) -> None:
    (home / "forerun.db").touch()
    ended = subprocess.run([sys.executable, "-m", "api"], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("forerun: the database ")
    assert ended.stderr.count("\n") == 1
