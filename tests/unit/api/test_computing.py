"""What is computed in a process of its own: its result, its end, and its limits."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe

import psutil
import pytest

from api.computing import Computing
from service.errors import ComputationLost, FieldError, InvalidInput, TooBusy, TooExpensive

LONG = 60.0  # more than any of these tests takes


def joined(*texts: str, by: str = " ") -> bytes:
    return by.join(texts).encode()


def its_process() -> bytes:
    return str(os.getpid()).encode()


def hang(connection: Connection) -> bytes:
    """Say which process this is, and wait for ever."""
    connection.send_bytes(its_process())
    while True:
        signal.pause()


def hang_in_c() -> bytes:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGALRM])
    os.read(os.pipe()[0], 1)
    return b""


def die() -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def refuse() -> bytes:
    raise InvalidInput([FieldError("global_batch_size", 2048, "less than one batch")])


def niceness() -> bytes:
    return str(os.nice(0)).encode()


def fail() -> bytes:
    raise LookupError("what went wrong")


def swallow(size: int) -> bytes:
    return bytes(size)


def test_a_function_runs_in_a_process_of_its_own():
    computing = Computing(seconds=LONG)
    assert computing.run(joined, "a", "b", by="-") == b"a-b"
    first, second = (int(computing.run(its_process)) for _ in range(2))
    assert os.getpid() not in (first, second)
    assert first != second
    assert not psutil.pid_exists(first)
    assert not psutil.pid_exists(second)


def test_the_service_goes_first():
    assert int(Computing(seconds=LONG).run(niceness)) == min(os.nice(0) + 10, 19)


def test_what_is_prepared_takes_a_turn():
    computing = Computing(seconds=0.1, processes=1, waiting=0)
    with computing.turn() as turn:
        with pytest.raises(TooBusy), computing.turn():
            raise AssertionError("there is no room for it")
        with pytest.raises(TooBusy):
            computing.run(joined)
    with computing.turn() as turn:
        assert turn.seconds == 0.1


def test_a_large_result_comes_back_whole():
    assert len(Computing(seconds=LONG).run(swallow, 20_000_000)) == 20_000_000


def test_what_takes_too_long_is_killed_and_the_next_is_computed():
    computing = Computing(seconds=0.2)
    with pytest.raises(
        TooExpensive, match=r"more than the 0.2 s that are allowed \(FORERUN_COMPUTE_SECONDS\); ask for"
    ):
        computing.run(hang_in_c)
    assert Computing(seconds=LONG).run(joined, "still here") == b"still here"


def test_the_process_of_what_takes_too_long_is_gone():
    ours, theirs = Pipe(duplex=False)
    with pytest.raises(TooExpensive):
        Computing(seconds=3).run(hang, theirs)
    assert not psutil.pid_exists(int(ours.recv_bytes()))


def test_a_process_that_dies_is_told_of_and_replaced():
    computing = Computing(seconds=LONG)
    with pytest.raises(ComputationLost, match="has died"):
        computing.run(die)
    assert computing.run(joined, "still here") == b"still here"


def test_what_a_function_refuses_is_refused():
    with pytest.raises(InvalidInput) as caught:
        Computing(seconds=LONG).run(refuse)
    assert caught.value.errors == (FieldError("global_batch_size", 2048, "less than one batch"),)


def test_an_error_comes_back_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)test_computing.py.*LookupError: what went wrong"):
        Computing(seconds=LONG).run(fail)


def test_a_fork_server_that_was_killed_is_started_anew():
    computing = Computing(seconds=LONG)
    computing.run(joined)
    [server] = [child for child in psutil.Process().children() if any("forkserver" in part for part in child.cmdline())]
    server.kill()
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)  # it has ended; multiprocessing asks for its status
    assert computing.run(joined, "still here") == b"still here"


def test_so_many_at_a_time_so_many_wait_and_more_are_refused():
    ours, theirs = Pipe(duplex=False)
    computing = Computing(seconds=LONG, processes=1, waiting=1)
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(computing.run, hang, theirs)
        pid = int(ours.recv_bytes())
        waiting = threads.submit(computing.run, joined, "at last")
        while computing._room._value:  # until it waits
            assert not waiting.done()
        with pytest.raises(TooBusy, match="try again"):
            computing.run(joined)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ComputationLost):
            hanging.result(LONG)
        assert waiting.result(LONG) == b"at last"
    assert computing.run(joined, "and so on") == b"and so on"


def test_who_waits_too_long_for_a_turn_is_refused():
    ours, theirs = Pipe(duplex=False)
    computing = Computing(seconds=2, processes=1)
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(computing.run, hang, theirs)
        ours.recv_bytes()
        computing._seconds = 0.1  # of those that come now
        with pytest.raises(TooBusy, match=r"left no room for 0.1 s"):
            computing.run(joined)
        with pytest.raises(TooExpensive):
            hanging.result(LONG)


def test_the_service_itself_does_not_import_matplotlib():
    """That would take a second of its start, and 60 MB."""
    code = "import sys, api.app; print(any(name.startswith('matplotlib') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
