"""Expected numbers are worked out by hand from the formulas of Signer & Barbier, and of Do et al. (TVLARS)."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.batch_scaling import (
    cosine_decay,
    effective_learning_rate,
    polynomial_decay,
    step_decay,
    warmup_learning_rate,
)
from service.spec.scaling import scale, scaled_momentum


@pytest.mark.parametrize(
    ("rule", "factors"),  # Signer & Barbier: base batch 64; 64, 128, 1024, 8192
    [("none", [1, 1, 1, 1]), ("sqrt", [1, 1.4142135623730951, 4, 11.313708498984761]), ("linear", [1, 2, 16, 128])],
)
def test_the_factor_of_a_batch(rule, factors):
    assert [scale(rule, batch=batch, base_batch=64) for batch in (64, 128, 1024, 8192)] == pytest.approx(factors)


def test_a_smaller_batch_has_a_factor_below_one():
    assert scale("linear", batch=16, base_batch=64) == 0.25
    assert scale("sqrt", batch=16, base_batch=64) == 0.5


def test_effective_learning_rates():
    assert effective_learning_rate(0.01, 0.0) == 0.01
    assert effective_learning_rate(0.01, 0.9) == pytest.approx(0.1)
    assert effective_learning_rate(0.01, 0.99) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("momentum", "factor", "scaled"),
    [
        (0.9, 1, 0.9),
        (0.9, 2, 0.95),
        (0.9, math.sqrt(2), 0.9292893218813453),  # Signer & Barbier, Fig. 6: one doubling by the square root
        (0.9, 10, 0.99),
        (0.0, 4, 0.75),
        (0.9, 0.5, 0.8),  # a smaller batch
        (0.5, 0.5, 0.0),
    ],
)
def test_momentum_that_follows_the_batch(momentum, factor, scaled):
    assert scaled_momentum(momentum, factor) == pytest.approx(scaled)


def test_no_momentum_below_zero():
    with pytest.raises(
        ValueError, match=r"momentum 0.9 cannot follow a factor of 0.05: .* = -1 is below 0; .* at least 0.1"
    ):
        scaled_momentum(0.9, 0.05)
    with pytest.raises(ValueError, match="is below 0"):
        scaled_momentum(0.0, 0.5)


@given(st.floats(0, 0.999), st.floats(1, 2**20), st.floats(1e-6, 10))
def test_scaled_momentum_scales_the_effective_learning_rate(momentum, factor, learning_rate):
    scaled = effective_learning_rate(learning_rate, scaled_momentum(momentum, factor))
    assert scaled == pytest.approx(factor * effective_learning_rate(learning_rate, momentum), rel=1e-6)


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
