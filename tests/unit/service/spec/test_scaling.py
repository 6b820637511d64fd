"""Expected numbers are worked out by hand from the formulas of Signer & Barbier."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.spec.scaling import effective_learning_rate, scale, scaled_momentum


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
