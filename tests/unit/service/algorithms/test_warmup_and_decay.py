"""Expected numbers are worked out by hand from the formulas of Signer & Barbier, and of Do et al. (TVLARS)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.warmup_and_decay import (
    cosine_decay,
    polynomial_decay,
    step_decay,
    warmup_learning_rate,
)


def by_epoch(kind: str, epochs: int, **rates: float) -> list[float]:
    """Of the first iteration of each epoch; an epoch has 4."""
    return [
        warmup_learning_rate(kind, epochs=epochs, iteration=4 * epoch, iterations_per_epoch=4, **rates)
        for epoch in range(epochs)
    ]


def test_constant_warm_up():
    assert by_epoch("constant", 3, base=0.01, scaled=0.64) == [0.01, 0.01, 0.01]


def test_gradual_warm_up_is_the_papers_formula():
    """Signer & Barbier: (K+1-i)/K e0 + (i-1)/K k e0 with K = 10, e0 = 0.01 and k = 4096/64 = 64, hence 0.64."""
    rates = by_epoch("gradual", 10, base=0.01, scaled=0.64)
    assert rates == pytest.approx([0.01, 0.073, 0.136, 0.199, 0.262, 0.325, 0.388, 0.451, 0.514, 0.577])
    # with the square root of k, 0.08: K = 4
    assert by_epoch("gradual", 4, base=0.01, scaled=0.08) == pytest.approx([0.01, 0.0275, 0.045, 0.0625])
    # the same through an epoch
    last = warmup_learning_rate("gradual", base=0.01, scaled=0.64, epochs=10, iteration=7, iterations_per_epoch=4)
    assert last == pytest.approx(0.073)


def test_linear_warm_up_goes_by_iteration_and_ends_where_the_schedule_begins():
    rates = [
        warmup_learning_rate("linear", base=9.0, scaled=0.8, epochs=2, iteration=iteration, iterations_per_epoch=4)
        for iteration in (0, 1, 2, 4, 7, 8)
    ]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.4, 0.7, 0.8])


def test_polynomial_decay():
    assert [polynomial_decay(x, 2.0) for x in (0, 0.25, 0.5, 1)] == [1, 0.5625, 0.25, 0]
    assert [polynomial_decay(x, 1.0) for x in (0, 0.25, 1)] == [1, 0.75, 0]


def test_cosine_decay():
    assert [cosine_decay(x, 0.0) for x in (0, 1 / 3, 0.5, 1)] == pytest.approx([1, 0.75, 0.5, 0], abs=1e-15)
    assert [cosine_decay(x, 0.001) for x in (0, 0.5, 1)] == pytest.approx([1, 0.5005, 0.001])  # Do et al.: to 0.1 %


def test_step_decay():
    milestones = [0.5, 0.75]
    rates = [step_decay(x, milestones, 0.1) for x in (0, 0.49, 0.5, 0.74, 0.75, 1)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert step_decay(1.0, [], 0.1) == 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10).map(sorted), st.floats(0.1, 5), st.floats(0, 1))
def test_no_decay_rises(progress, power, share):
    for rates in (
        [polynomial_decay(x, power) for x in progress],
        [cosine_decay(x, share) for x in progress],
        [step_decay(x, [0.3, 0.6], share) for x in progress],
    ):
        assert all(later <= earlier + 1e-12 for earlier, later in pairwise(rates))
