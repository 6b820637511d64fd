"""What a race tries, round by round."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.race import between, finalists, probe, reach, window
from service.spec.race import PROBES
from service.spec.types import MAX_LEARNING_RATE, MIN_LEARNING_RATE

RATE = st.floats(MIN_LEARNING_RATE, MAX_LEARNING_RATE)
OPTIMIZER = st.sampled_from(["sgd", "adamw", "lars"])
FIRST = [1.0, 0.3, 0.1, 0.03, 0.01]


@pytest.mark.parametrize(
    ("best", "tried", "next_one"),
    [
        (1.0, FIRST, 10.0),
        (0.01, FIRST, 0.001),
        (0.1, FIRST, 0.178),
        (0.1, [*FIRST, 0.1 * 10**0.25], 0.0562),
        (10.0, [*FIRST, 10.0], 100.0),
    ],
)
def test_a_probe_is_far_beyond_an_end_or_beside_the_best(best: float, tried: list[float], next_one: float) -> None:
    assert probe(tried, best, MAX_LEARNING_RATE) == pytest.approx(next_one, rel=2e-3)


def test_two_probes_reach_a_thousandfold_either_way() -> None:
    highest = probe([*FIRST, probe(FIRST, 1.0, 1e6)], 10.0, 1e6)
    lowest = probe([*FIRST, probe(FIRST, 0.01, 1e6)], 0.001, 1e6)
    assert (highest / 0.1, 0.1 / lowest) == pytest.approx((1000, 1000))


@given(first=st.lists(RATE, min_size=3, max_size=8, unique=True), optimizer=OPTIMIZER, largest=RATE)
def test_a_race_stays_within_its_reach(first: list[float], optimizer: str, largest: float) -> None:
    looks = [min(rate, largest) for rate in first]
    low, high = reach(looks, optimizer, largest)
    for end in (min, max):
        tried = list(looks)
        for _ in range(PROBES):
            tried.append(probe(tried, end(tried), largest))
        for rate in (*tried, *window(end(tried), optimizer, largest)):
            assert low <= rate <= high


def test_the_window_lies_below_the_best_with_sgd_and_around_it_elsewhere() -> None:
    assert window(1.0, "sgd", 10.0) == pytest.approx([1.0, 0.316, 0.1, 0.0316], rel=1e-2)
    assert window(1e-3, "adamw", 10.0) == pytest.approx([3.16e-3, 1.78e-3, 1e-3, 5.62e-4], rel=1e-2)
    assert window(1e-3, "lars", 2e-3) == pytest.approx([2e-3, 1.78e-3, 1e-3, 5.62e-4], rel=1e-2)


@pytest.mark.parametrize(
    ("losses", "best", "optimizer", "two"),
    [
        ([3.0, 1.0, 1.1, 2.0], 1, "sgd", (1, 2)),
        ([3.0, 1.0, 2.1, 2.0], 1, "sgd", (1, 2)),  # below, whatever it came to: its loss is still to fall
        ([3.0, 2.0, 1.1, 1.0], 3, "sgd", (3, 2)),
        ([1.5, 1.0, 2.1, 2.0], 1, "adamw", (1, 0)),
        ([math.nan, 1.0, 2.1, 2.0], 1, "adamw", (1, 2)),
        ([0.5, 1.0, 2.1, 2.0], 0, "lars", (0, 1)),
    ],
)
def test_the_best_and_a_neighbour_are_finalists(
    losses: list[float], best: int, optimizer: str, two: tuple[int, int]
) -> None:
    assert finalists(losses, best, optimizer, early=False) == two


def test_where_no_net_has_left_its_plateau_sgd_goes_on_with_the_lowest() -> None:
    losses = [math.nan, 2.25, 2.29, 2.3]
    assert finalists(losses, 1, "sgd", early=True) == (2, 3)
    assert finalists(losses, 1, "adamw", early=True) == (1, 2)


@given(st.lists(RATE, min_size=1, max_size=9), RATE, OPTIMIZER, st.data())
def test_nothing_above_the_cap_is_tried(tried: list[float], cap: float, optimizer: str, data: st.DataObject) -> None:
    best = data.draw(st.sampled_from(tried))
    assert MIN_LEARNING_RATE <= probe(tried, best, cap) <= cap
    rates = window(best, optimizer, cap)
    assert rates == sorted(rates, reverse=True)
    assert all(MIN_LEARNING_RATE <= rate <= cap for rate in rates)


@pytest.mark.parametrize(
    ("finalists", "rate"),
    [
        ([(0.1, 0.5), (0.01, 0.5)], 0.032),
        ([(0.1, 0.5), (0.01, 1.0)], 0.022),
        ([(0.01, 1.0), (0.1, 0.5)], 0.022),
        ([(0.123456, 0.5), (0.01, -0.2)], 0.123456),  # the other one has lost: not even rounded
        ([(0.123456, 0.5), (0.01, math.nan)], 0.123456),
        ([(0.1, 0.0), (0.01, -0.2)], None),
    ],
)
def test_between_finalists_is_their_mean_by_what_they_gained(
    finalists: list[tuple[float, float]], rate: float | None
) -> None:
    assert between(finalists) == rate


@given(RATE, RATE, st.floats(0.001, 10), st.floats(-1, 10))
def test_what_lies_between_finalists_is_theirs_or_between(one: float, other: float, gain: float, more: float) -> None:
    rate = between([(one, gain), (other, more)])
    assert rate is not None
    assert min(one, other) <= rate <= max(one, other)
