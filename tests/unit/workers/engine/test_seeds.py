import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.seeds import derived_seed

SEEDS = st.integers(0, 2**63 - 1) | st.builds(
    lambda low, high: low + (high << 32), st.integers(0, 3), st.integers(0, 3)
)
PARTS = st.integers(0, 3) | st.integers(0, 2**31 - 1)
KEYS = st.tuples(SEEDS, PARTS) | st.tuples(SEEDS, PARTS, PARTS, PARTS)  # an epoch; an epoch's microbatch


@given(st.sets(KEYS, min_size=2, max_size=20))
def test_each_key_has_a_seed_of_its_own(keys):
    seeds = {derived_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == {derived_seed(*key) for key in keys}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((7, 3), (7, 3, 0, 0)),  # the epoch's order, and the dropout of its first microbatch
        ((5, 1, 3, 0), (5 + 2**32, 3)),  # a seed of more than 32 bits
        ((0, 1), (1, 0)),
    ],
)
def test_keys_that_are_easily_taken_for_one_another(one, other):
    assert derived_seed(*one) != derived_seed(*other)
