"""Turns: how many go on at a time, in which order, and what becomes of one that waits in vain."""

from collections.abc import Callable
from threading import Barrier, Thread

import pytest

from service.store.turns import Turns
from tests.processes import wait_until


def started(call: Callable[[], object]) -> Thread:
    thread = Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_no_more_than_so_many_go_on_at_a_time() -> None:
    turns, inside, most = Turns(3, patience=30), list[None](), list[int]()
    together = Barrier(12)

    def work() -> None:
        together.wait(30)
        for _ in range(50):
            with turns.turn():
                inside.append(None)
                most.append(len(inside))
                inside.pop()

    for thread in [started(work) for _ in range(12)]:
        thread.join(30)
    assert len(most) == 600
    assert max(most) <= 3


def test_they_go_on_in_the_order_in_which_they_came() -> None:
    turns, order, threads = Turns(1, patience=30), list[int](), list[Thread]()

    def work(number: int) -> None:
        with turns.turn():
            order.append(number)

    with turns.turn():
        for number in range(8):
            threads.append(started(lambda number=number: work(number)))  # type: ignore[misc]
            wait_until(lambda: len(turns._waiting) == len(threads))
    for thread in threads:
        thread.join(30)
    assert order == list(range(8))


def test_who_waits_in_vain_goes_on_and_takes_no_turn_away() -> None:
    turns = Turns(1, patience=0.01)
    with turns.turn(), turns.turn(), turns.turn():
        assert turns._free == 0
    assert (turns._free, len(turns._waiting)) == (1, 0)


def test_a_turn_is_given_back_where_the_block_raises() -> None:
    turns = Turns(1, patience=30)
    with pytest.raises(ZeroDivisionError), turns.turn():
        _ = 1 / 0
    assert turns._free == 1
