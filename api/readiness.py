"""Whether the service can work: its database can be read and written, and there is room for its files."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from migrations import is_current
from service.store.engine import DatabaseError, Store, trouble_of

KEPT_S = 1.0  # an answer holds for so long: probes cost the database one write a second, however many ask

log = logging.getLogger("forerun.api")


class Readiness:
    """Looks whether the service can work, at most once in KEPT_S.

    `folders` need `free_bytes` of free space; one that is not there yet is where it would be made. `monotonic` gives
    seconds by a clock that does not jump.
    """

    def __init__(
        self,
        store: Store,
        folders: Sequence[Path],
        free_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._folders, self._free_bytes, self._monotonic = store, folders, free_bytes, monotonic
        self._lock = threading.Lock()  # while one looks, others wait for what it finds
        self._found: tuple[float, Sequence[str]] | None = None

    def troubles(self) -> Sequence[str]:
        """Why the service cannot work at present, a sentence each; none where it can."""
        with self._lock:
            if self._found is None or self._monotonic() - self._found[0] >= KEPT_S:
                troubles = [*self._of_the_database(), *self._of_the_disk()]
                self._found = self._monotonic(), troubles
            return self._found[1]

    def _of_the_database(self) -> Iterator[str]:
        try:
            if not is_current(self._store):
                yield "the database's schema is not the newest; migrate it"
            else:
                self._store.try_to_write()
        except DatabaseError as error:
            trouble = trouble_of(error)
            if trouble is None:
                log.exception("the database does not answer")
            yield trouble or "the database does not answer; the service's log says why"

    def _of_the_disk(self) -> Iterator[str]:
        free = {_free_bytes(folder) for folder in self._folders}
        for least in sorted(free)[:1]:
            if least < self._free_bytes:
                yield (
                    f"{least // 2**20} MiB are free for the service's files, and FORERUN_MIN_FREE_MB asks for "
                    f"{self._free_bytes // 2**20}; make room"
                )


def _free_bytes(folder: Path) -> int:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free
