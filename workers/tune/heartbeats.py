"""How far the trials of a search are, told to its driver between their epochs: a file for each trial, with a number.

Trials have no token, so they cannot send heartbeats themselves; the driver's tell of all of them.
"""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.engine import progress

TELL_S = 3.0
DIGITS = 20  # always: to write a number in place of another one takes no room on a disk that is full


@contextmanager
def telling(file: Path) -> Iterator[None]:
    """Inside, a thread writes to `file`, every few seconds, how far this process has come."""
    over = threading.Event()

    def tell() -> None:
        while True:
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                _write(file, progress.so_far())
            if over.wait(TELL_S):
                return

    thread = threading.Thread(target=tell, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _write(file: Path, number: int) -> None:
    with file.open("r+b" if file.exists() else "wb", buffering=0) as opened:
        opened.write(f"{number:0{DIGITS}d}".encode())


def so_far(folder: Path) -> int:
    """How far the trials whose files lie in `folder` have come together; one that cannot be read counts for nothing."""
    total = 0
    for file in folder.glob("*"):
        with contextlib.suppress(OSError, ValueError):
            total += int(file.read_text())
    return total
