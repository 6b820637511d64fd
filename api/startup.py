"""What stands between a service and its start: its locks, and a database that can be used. What cannot be used ends the
process with one line and exit code 2."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import ValidationError

from migrations import is_empty, migrate
from service.settings import Settings
from service.store.engine import DatabaseError, Store, reason_of

log = logging.getLogger("forerun")


def refused(sentence: str) -> SystemExit:
    """Print why the service does not start, on one line, and return the exit."""
    print(f"forerun: {' '.join(sentence.split())}", file=sys.stderr)
    return SystemExit(2)


def unusable(setting: str, value: object, why: object) -> SystemExit:
    """Print which setting is wrong, on one line, and return the exit. A database's URL is not shown: it may hold a
    password."""
    shown = "" if setting == "database_url" else f" = {str(value)!r}"
    return refused(f"FORERUN_{setting.upper()}{shown} cannot be used: {why}")


def read_settings() -> Settings:
    """The settings, from the environment. Raises SystemExit where one cannot be used."""
    try:
        return Settings()
    except ValidationError as error:
        for e in error.errors():
            wrong = unusable(str(e["loc"][0]), e["input"], e["msg"].removeprefix("Value error, "))
        raise wrong from None


def make_home(home: Path) -> None:
    """Make the folder `home` for its owner alone, or close one that a service has used to all others. Raises SystemExit
    where it is open and somebody else's things lie there, and OSError where that cannot be done."""
    for folder in (*reversed(home.parents), home):  # mkdir's `parents` would be open to everybody
        folder.mkdir(exist_ok=True, mode=0o700)
    if not home.stat().st_mode & _OTHERS:
        return
    known = [path for path in home.iterdir() if path.name.startswith(_OURS)]
    if not known and any(home.iterdir()):
        raise unusable(
            "home",
            home,
            f"other accounts may read it, and it has things that are not Forerun's: name a folder of its own, or close "
            f"it by `chmod 700 {home}`",
        )
    try:
        for path in (home, *(path for path in known if not path.is_symlink())):
            path.chmod(path.stat().st_mode & ~_OTHERS)
    except PermissionError:
        why = (
            "other accounts may read it, and one of them owns it: name a folder in it, which is made for this one alone"
        )
        raise unusable("home", home, why) from None
    log.warning("%s was open to other accounts, and is closed to them now", home)


_OTHERS = 0o077  # what group and others may
_OURS = ("forerun.db", "jobs", "ray-token", "service-id", "service.")


@contextmanager
def only_service_of(home: Path) -> Iterator[None]:
    """Hold the lock of the folder `home`: what lies there is one service's alone."""
    with ExitStack() as stack:
        try:
            make_home(home)
            _lock(stack, home / "service.lock")
        except Timeout:
            raise refused(f"another service runs with the home {home}; stop it or set FORERUN_HOME") from None
        except OSError as error:
            raise unusable("home", home, error) from None
        yield


def id_of_service(home: Path) -> str:
    """The id of the service with this home, by which it knows its own lease when it is started anew."""
    file = home / "service-id"
    if not file.exists():
        file.write_text(uuid4().hex)
    return file.read_text().strip()


@contextmanager
def open_database(settings: Settings, *, serves: bool = True) -> Iterator[Store]:
    """The store of the configured database, migrated to the newest schema. Raises SystemExit where it cannot be used,
    has lost the jobs whose files lie in the home, or, for whoever `serves` by it, is an SQLite file that another
    service uses."""
    with ExitStack() as stack:
        try:
            store = Store(settings.database())
            if serves and store.file is not None:
                _lock(stack, store.file.with_name(f"{store.file.name}.lock"))
            stack.callback(store.close)
            _check_contents(settings, store)
            migrate(store)
        except Timeout:
            raise refused(
                f"another service uses the database {store.file}; stop it, or use PostgreSQL, where one can stand by"
            ) from None
        except (DatabaseError, OSError, ValueError) as error:
            why = reason_of(error)
            if settings.database_url is None:
                raise unusable("home", settings.home, why) from None
            raise unusable("database_url", settings.database_url, why) from None
        yield store


def _check_contents(settings: Settings, store: Store) -> None:
    """Refuse a database that has no table where there must have been jobs."""
    if store.file is not None and store.file.exists() and store.file.stat().st_size == 0:
        raise refused(
            f"the database {store.file} is an empty file, as Forerun never leaves one: restore it from a copy, or "
            "delete it to begin without jobs"
        )
    jobs = settings.jobs()
    if is_empty(store) and jobs.is_dir() and any(jobs.iterdir()):
        raise refused(
            f"the database has no tables, but files of jobs lie in {jobs}: name their database by FORERUN_DATABASE_URL "
            "or restore it from a copy, or move that folder away to begin without jobs"
        )


def _lock(stack: ExitStack, path: Path) -> None:
    """Hold a lock file until the stack ends. Raises Timeout where another process holds it."""
    lock = FileLock(path, timeout=0)
    lock.acquire()
    stack.callback(lock.release)
