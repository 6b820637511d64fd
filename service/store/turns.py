"""Turns that threads take."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Turns:
    """Lets so many threads at a time go on, in the order in which they come: of a semaphore of `threading` one that has
    just come may be before those that wait."""

    def __init__(self, number: int, patience: float) -> None:
        self._free, self._patience = number, patience
        self._waiting = deque[Lock]()
        self._lock = Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends. Who has waited for `patience` seconds goes on all the
        same, so that a thread that waits for another one inside its turn is late, and not stuck."""
        has_turn = self._wait()
        try:
            yield
        finally:
            if has_turn:
                self._give_back()

    def _wait(self) -> bool:
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            mine = Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=self._patience):
            return True
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
            return True  # it came just now

    def _give_back(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
