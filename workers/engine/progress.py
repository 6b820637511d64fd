"""How far this process has come: a count that grows with each forward pass, each batch read and each image decoded.

One process trains one model at a time. Its training counts, in whatever part of it there is something to count, and the
thread that sends heartbeats reads: a count that stands still tells that the training does.
"""

from itertools import count

_counter = count(1)
_so_far = 0


def advance() -> None:
    """Count one piece of work that is done. May be called by any thread."""
    global _so_far
    _so_far = next(_counter)


def so_far() -> int:
    """How many pieces of work this process has done."""
    return _so_far
