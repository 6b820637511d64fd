"""Writing to a disk that may be full: a training waits for room, and says so, instead of failing.

A disk that is full, a quota that is used up and a disk that cannot be written are nothing that a training is to blame
for, and nothing that another attempt would do better.
"""

import errno
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

WAITED_FOR = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
PROBE_BYTES = 1 << 20
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # in the words of safetensors, which is written in Rust
COPY_ERROR = re.compile(r"\[Errno (\d+)\]")  # in those of shutil, of each file that could not be copied

log = logging.getLogger(__name__)
T = TypeVar("T")


def until_written(write: Callable[[], T], folder: Path, tell: Callable[[str | None], None]) -> T:
    """What `write` returns, which writes to `folder` and leaves nothing unfinished there where it raises. While the
    disk cannot take it, it is called again, after 1, 2, 4, … 60 s, for ever.

    `tell` is called with what is waited for, in words, and with None in the end. Whatever else `write` raises is
    raised.
    """
    waits = False

    def before_sleep(state: RetryCallState) -> None:
        nonlocal waits
        assert state.outcome is not None
        error = state.outcome.exception()
        assert error is not None
        reason = f"a disk that can be written: {folder} ({os.strerror(errno_of(error) or 0)})"
        if not waits:
            log.warning("the training waits for %s", reason)
        waits = True
        tell(reason)

    retrying = Retrying(
        retry=retry_if_exception(lambda error: errno_of(error) in WAITED_FOR),
        wait=wait_exponential(FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
        before_sleep=before_sleep,
        reraise=True,
    )
    result = retrying(write)
    if waits:
        log.warning("%s can be written to again", folder)
        tell(None)
    return result


def await_room(folder: Path, tell: Callable[[str | None], None]) -> None:
    """Return when a file can be written to `folder`, which is made where it is absent; `tell` as in `until_written`."""

    def probe() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "probe", bytes(PROBE_BYTES))
        (folder / "probe").unlink()

    until_written(probe, folder, tell)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; when this returns it is on the disk. What remains of one that could not be
    written is removed."""
    unfinished = path.with_name(f".{path.name}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def errno_of(error: BaseException) -> int | None:
    """The number of the operating system's error that `error` tells of; None where it does not tell of one."""
    if isinstance(error, SafetensorError) and (found := OS_ERROR.search(str(error))):
        return int(found[1])
    if isinstance(error, shutil.Error) and (found := COPY_ERROR.search(str(error))):
        return int(found[1])
    return error.errno if isinstance(error, OSError) else None
