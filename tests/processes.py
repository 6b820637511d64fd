"""The processes of a service or a Ray head, and waiting for what they do."""

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil

T = TypeVar("T")


def descendants(pid: int) -> list[psutil.Process]:
    """The process with this id and all processes below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def of_each(pid: int, read: Callable[[psutil.Process], Iterable[T]]) -> list[T]:
    """What `read` returns of every descendant, joined; one that ends meanwhile counts for nothing."""
    values: list[T] = []
    for process in descendants(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            values += read(process)
    return values


def wait_until(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """Wait until the condition is true, and return its first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return value
