"""What takes the service long to compute, figures and forecasts, runs in processes of its own, with a time limit.

Each computation has a process to itself, forked within milliseconds from multiprocessing's fork server, which has
everything imported. So what hangs, dies or takes memory is gone with its process, and the event loop and the threads of
the service stay free (docs/decisions/0023). multiprocessing would have each process import the program's main module,
but for one that is called `__main__`, as that of `python -m api` is.
"""

import json
import math
import multiprocessing
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from threading import BoundedSemaphore, Lock
from typing import ParamSpec

from service.errors import ComputationLost, FieldError, InvalidInput, TooBusy, TooExpensive

P = ParamSpec("P")

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["api.forecast", "api.figures", "api.decisions_figure", "matplotlib.figure", "matplotlib.backends.backend_svg"]
)
_LOCK = Lock()  # a process that starts looks at all others, whichever thread ends them
_DONE, _REFUSED, _FAILED = b"\0", b"\1", b"\2"  # the first byte of what comes back
_ALONE_SECONDS = 5  # over the limit: then a process whose service is gone ends by itself
_NICE = 10  # the service, and trainings on the same machine, go first


class Computing:
    """Runs functions that return bytes, `processes` of them at a time, each for `seconds` at most. The requests of
    `waiting` more wait for their turn; what comes then is refused."""

    def __init__(self, *, seconds: float = 20.0, processes: int = 2, waiting: int = 8) -> None:
        self._seconds = seconds
        self._room, self._turn = BoundedSemaphore(processes + waiting), BoundedSemaphore(processes)

    def prepare(self) -> None:
        """Start the fork server, which then imports for a second or two, ahead of the first computation."""
        with _LOCK:
            forkserver.ensure_running()

    def run(self, function: Callable[P, bytes], *args: P.args, **options: P.kwargs) -> bytes:
        """Return what the function, one of a module, returns for these arguments.

        Raises the InvalidInput that it raises, TooBusy where there is no room for it, TooExpensive where it takes
        longer than the limit, ComputationLost where its process dies, and RuntimeError with the traceback of anything
        else that it raises.
        """
        with self.turn() as turn:
            return turn.run(function, *args, **options)

    @contextmanager
    def turn(self) -> Iterator["Turn"]:
        """Wait for a turn, and enter with it. What it takes to prepare a computation is done inside, so that it is not
        done for those that are refused. Raises TooBusy where there is no room."""
        if not self._room.acquire(blocking=False):
            raise TooBusy("too many figures and forecasts are asked for at the same time; try again in a moment")
        try:
            if not self._turn.acquire(timeout=self._seconds):
                raise TooBusy(f"other figures and forecasts have left no room for {self._seconds:g} s; try again later")
            try:
                yield Turn(self._seconds)
            finally:
                self._turn.release()
        finally:
            self._room.release()


@dataclass(frozen=True)
class Turn:
    """One of the computations that may run at a time, for `seconds` at most."""

    seconds: float

    def run(self, function: Callable[P, bytes], *args: P.args, **options: P.kwargs) -> bytes:
        """Return what the function, one of a module, returns for these arguments; raises what `Computing.run` does."""
        ours, theirs = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(
            target=_compute, args=(theirs, self.seconds + _ALONE_SECONDS, function, args, options), daemon=True
        )
        with ours, theirs:
            try:
                with _LOCK:
                    process.start()
                theirs.close()
                if not ours.poll(self.seconds):
                    message = f"it takes more than the {self.seconds:g} s that are allowed (FORERUN_COMPUTE_SECONDS)"
                    raise TooExpensive(f"{message}; ask for less of it, or for JSON or CSV in place of a figure")
                answer = ours.recv_bytes()
            except (EOFError, OSError):  # of the process, or of the fork server
                raise ComputationLost("the process that computed this has died; try again in a moment") from None
            finally:
                _end(process)
        return _result(answer[:1], answer[1:])


def _end(process: ForkServerProcess) -> None:
    with _LOCK:
        if process.pid is not None:
            process.kill()
            process.join()
        process.close()


def _result(how: bytes, content: bytes) -> bytes:
    if how == _REFUSED:
        raise InvalidInput([FieldError(**error) for error in json.loads(content)])
    if how == _FAILED:
        raise RuntimeError(f"a computation failed in its process:\n{content.decode()}")
    return content


def _compute(
    connection: Connection,
    seconds: float,
    function: Callable[..., bytes],
    args: tuple[object, ...],
    options: Mapping[str, object],
) -> None:
    """The whole life of a process: send what the function returns, or why it did not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this
    signal.alarm(math.ceil(seconds))
    os.nice(_NICE)
    warnings.simplefilter("ignore")  # of matplotlib's, about characters that its fonts lack
    try:
        answer = _DONE + function(*args, **options)
    except InvalidInput as error:
        answer = _REFUSED + json.dumps([asdict(one) for one in error.errors]).encode()
    except Exception:  # whatever the function has a mistake for: told to the service, which raises and logs it
        answer = _FAILED + traceback.format_exc().encode(errors="replace")
    connection.send_bytes(answer)
