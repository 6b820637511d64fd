"""What faults are injected into: databases, folders and servers that many injections share, each started when the first
one asks for it."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Self

from migrations import migrate
from service.store.engine import Store
from tests.databases import Postgres, postgres_server
from tests.faults.invariants import Violation


class Bench:
    """Where faults are injected. `postgres`: whether a PostgreSQL server may be started."""

    def __init__(self, *, with_postgres: bool = True) -> None:
        self.with_postgres = with_postgres
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # short: Ray puts its sockets below it
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ff-")))
        memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108  # where writing is quick
        self._memory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ff-", dir=memory)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

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

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder in memory, which is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._memory) as folder:
            yield Path(folder)


# Injects a fault once for each number and gives the violations of each injection as it ends.
Inject = Callable[[Bench, Sequence[int], Random], Iterator[Sequence[Violation]]]
