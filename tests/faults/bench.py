"""What faults are injected into: databases, folders and servers that many injections share, each started when the first
one asks for it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Self
from unittest.mock import patch

from migrations import migrate
from service.store.engine import Store
from tests.databases import Postgres, postgres_server
from tests.e2e.service import Service, running_service
from tests.faults.invariants import Evidence, Violation, files_in, processes_with, violations_of

MARK = "FAULTS_BENCH"  # an environment variable that whatever is started inherits, with this process's id


class Bench:
    """Where faults are injected. `postgres`: whether a PostgreSQL server may be started."""

    def __init__(self, *, with_postgres: bool = True) -> None:
        self.with_postgres = with_postgres
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        os.environ[MARK] = str(os.getpid())
        self.folder = Path(tempfile.mkdtemp(prefix="ff-"))  # short: Ray puts its sockets below it
        memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108  # where writing is quick
        self._memory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ff-", dir=memory)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def as_temporary_folder(self) -> Iterator[None]:
        """Let temporary files of this process lie in the folder of the bench."""
        with patch.object(tempfile, "tempdir", str(self.folder)):
            yield

    @contextmanager
    def service(self, home: Path, port: int | None = None, **environment: str) -> Iterator[Service]:
        """A service in a process of its own."""
        settings = {"TMPDIR": str(self.folder), "FORERUN_POLL_SECONDS": "0.2", **environment}
        if port is not None:
            settings["FORERUN_PORT"] = str(port)
        with running_service(home, **settings) as service:
            yield service

    def left(self) -> list[Violation]:
        """The processes and temporary files that are left when all faults are done with."""
        self._stack.pop_all().close()
        mine = str(os.getpid())
        processes = [one for one in processes_with(f"{MARK}={mine}") if not one.startswith(f"{mine} ")]
        # a service that was killed leaves multiprocessing's folder behind: nobody else knows whose it was
        files = [one for one in files_in(self.folder, "*") if not one.startswith("pymp-")]
        evidence = Evidence(jobs=[], accepted={}, processes=processes, files=files)
        return violations_of(evidence)

    @cached_property
    def postgres(self) -> Postgres:
        """A PostgreSQL server."""
        return self._stack.enter_context(postgres_server(survives_kills=True))

    @cached_property
    def _postgres_template(self) -> str:
        store = self._stack.enter_context(self.postgres.database())
        migrate(store)
        store.close()
        name = store.url.database
        assert name is not None
        return name

    @cached_property
    def _sqlite_template(self) -> Path:
        path = self._memory / "template.db"
        store = Store(f"sqlite:///{path}")
        migrate(store)
        store.close()
        return path

    @contextmanager
    def databases(self) -> Iterator[Sequence[str]]:
        """The URLs of migrated, empty databases: on SQLite, and on PostgreSQL where that may be started."""
        with ExitStack() as stack:
            urls = [stack.enter_context(self.sqlite())]
            if self.with_postgres:
                urls.append(stack.enter_context(self.on_postgres()))
            yield urls

    @contextmanager
    def on_postgres(self) -> Iterator[str]:
        """The URL of a migrated, empty PostgreSQL database."""
        with self.postgres.database(self._postgres_template) as store:
            yield store.url.render_as_string(hide_password=False)

    @contextmanager
    def sqlite(self) -> Iterator[str]:
        """The URL of a migrated, empty SQLite database."""
        with tempfile.TemporaryDirectory(dir=self._memory) as folder:
            yield f"sqlite:///{shutil.copy(self._sqlite_template, Path(folder) / 'forerun.db')}"

    def keep(self, name: str) -> Path:
        """The path of a folder in memory that is there until the end."""
        return self._memory / name

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder in memory, which is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._memory) as folder:
            yield Path(folder)


# Injects a fault once for each number and gives the violations of each injection as it ends.
Inject = Callable[[Bench, Sequence[int], Random], Iterator[Sequence[Violation]]]
