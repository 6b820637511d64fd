"""The budget of a search promises no more than there is."""

from hypothesis import given
from hypothesis import strategies as st

from workers.tune.budget import Ledger


def test_a_ledger_promises_no_more_than_there_is() -> None:
    ledger = Ledger(budget=250)
    assert ledger.admit("a", 100)
    assert ledger.admit("b", 100)
    assert not ledger.admit("c", 100)
    ledger.took("a", 100)
    assert not ledger.admit("c", 100)  # 100 spent, 100 promised
    assert ledger.admit("c", 50)
    ledger.took("b", 100)
    ledger.took("c", 50)
    assert (ledger.spent, ledger.promised) == (250, {})


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60), st.integers(0, 1000))
def test_a_ledger_never_overdraws(moves: list[tuple[str, bool]], budget: int) -> None:
    ledger = Ledger(budget)
    for key, take in moves:
        if take and key in ledger.promised:
            ledger.took(key, ledger.promised[key])
        elif key not in ledger.promised:
            ledger.admit(key, 70)
        assert ledger.spent + sum(ledger.promised.values()) <= budget
