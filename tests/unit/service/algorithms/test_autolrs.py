"""The decisions of AutoLRS: losses in, forecast out; forecasts in, learning rate out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.algorithms.autolrs import (
    Exponential,
    Series,
    Tried,
    best_of,
    exponential_fit,
    forecast_loss,
    propose,
    smoothed,
)

NAN, INF = math.nan, math.inf
STEPS = np.arange(100.0)


# --- the fit ---------------------------------------------------------------------------------------------


@given(
    floor=st.floats(0.0, 3.0),
    amplitude=st.floats(0.1, 3.0) | st.floats(-3.0, -0.1),
    halvings=st.floats(0.1, 20.0),
    count=st.integers(4, 200),
)
def test_the_fit_recovers_an_exponential(floor, amplitude, halvings, count):
    """L(t) = a + b exp(-c t), whose amplitude halves so many times over the series."""
    iterations = np.arange(float(count))
    rate = min(halvings * math.log(2) / (count - 1), 1.0)
    found = exponential_fit(iterations, floor + amplitude * np.exp(-rate * iterations))
    assert found.rate == pytest.approx(rate, rel=1e-3)
    ahead = 10 * count
    assert found.at(ahead) == pytest.approx(floor + amplitude * math.exp(-rate * ahead), abs=1e-3 * abs(amplitude))


@given(scale=st.sampled_from([0.25, 2.0, 1024.0]), seed=st.integers(0, 100))
def test_the_unit_of_the_loss_does_not_matter(scale, seed):
    losses = 2 * np.exp(-0.02 * STEPS) + np.random.default_rng(seed).normal(0, 0.1, 100)
    one, other = exponential_fit(STEPS, losses), exponential_fit(STEPS, scale * losses)
    assert other.rate == pytest.approx(one.rate, rel=1e-5)
    assert other.at(1000) == pytest.approx(scale * one.at(1000), rel=1e-4, abs=1e-6)


def test_an_exponential_written_out():
    """1/2 + 2^(1 - t): 2.5, 1.5, 1, 0.75, 0.625."""
    found = exponential_fit(np.arange(5.0), np.array([2.5, 1.5, 1.0, 0.75, 0.625]))
    assert (found.floor, found.amplitude) == (pytest.approx(0.5, abs=1e-5), pytest.approx(2.0, abs=1e-5))
    assert found.rate == pytest.approx(math.log(2), rel=1e-5)
    assert Exponential(0.5, 2.0, math.log(2)).at(3) == pytest.approx(0.75)


def test_a_line_is_continued_as_a_line():
    """As far as the slowest exponential goes: its rate is 1 / 1000 over the series."""
    assert exponential_fit(STEPS, 2.0 - 0.001 * STEPS).at(1000) == pytest.approx(1.0, abs=0.01)


def test_a_loss_that_stays_is_its_own_forecast():
    assert exponential_fit(STEPS, np.full(100, 2.3)).at(1000) == pytest.approx(2.3)


# --- smoothing -------------------------------------------------------------------------------------------


def test_a_parabola_is_as_smooth_as_it_can_be():
    parabola = 2.0 - 0.02 * STEPS + 1e-4 * STEPS**2
    assert smoothed(Series(range(100), list(parabola))) == pytest.approx(parabola)


def test_outliers_of_the_first_half_are_left_out():
    """Of 100 losses the three that are furthest, and ten times over; the smoothed series is as long as before."""
    losses = 2.0 - 0.01 * STEPS
    losses[[7, 20, 33]] += 5.0
    assert smoothed(Series(range(100), list(losses))) == pytest.approx(2.0 - 0.01 * STEPS, abs=1e-9)


def test_outliers_of_the_second_half_stay():
    losses = 2.0 - 0.01 * STEPS
    losses[80] += 5.0
    assert max(abs(smoothed(Series(range(100), list(losses))) - (2.0 - 0.01 * STEPS))) > 0.05


def test_of_validation_losses_a_single_one_is_left_out():
    line = np.linspace(2.0, 1.0, 16)
    losses = line.copy()
    losses[3] += 2.0
    assert smoothed(Series(range(6, 102, 6), list(losses), by_validation=True)) == pytest.approx(line, abs=1e-9)
    losses[5] += 1.5
    assert max(abs(smoothed(Series(range(6, 102, 6), list(losses), by_validation=True)) - line)) > 0.05


@given(losses=st.lists(st.floats(0, 1e6), min_size=4, max_size=60))
def test_any_series_has_a_forecast(losses):
    assert math.isfinite(forecast_loss(Series(range(len(losses)), losses), 10 * len(losses), untrained=2.3))


# --- the forecast ----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000))
def test_noise_hides_the_end_no_more_than_it_must(seed):
    """A loss that falls slowly, with a batch's noise: the forecast ten times as far lies between what is seen now and
    what the slope would lead to."""
    noise = np.random.default_rng(seed).normal(0, 0.02, 100)
    losses = list(0.5 + 1.5 * np.exp(-0.02 * STEPS) + noise)
    forecast = forecast_loss(Series(range(100), losses), 1000, untrained=2.3)
    assert 0.3 < forecast < losses[-1] + 0.2


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_a_series_that_diverged_has_no_forecast(broken):
    assert math.isnan(forecast_loss(Series(range(5), [2.0, 1.0, broken, 1.0, 1.0]), 50, untrained=2.3))


def test_validation_losses_that_have_come_up_to_the_untrained_one_are_not_extrapolated():
    losses = [1.0, 2.4, 2.0, 1.5]
    assert forecast_loss(Series(range(4), losses, by_validation=True), 40, untrained=2.4) == 1.5
    assert forecast_loss(Series(range(4), losses, by_validation=True), 40, untrained=2.5) != 1.5
    assert forecast_loss(Series(range(4), losses), 40, untrained=2.4) != 1.5  # noise of a batch may do that


# --- the search ------------------------------------------------------------------------------------------

INTERVAL = (0.01, 1.0)


def searched(loss, trials, *, kappa, seed=0, interval=INTERVAL):
    tried = []
    for _ in range(trials):
        rate = propose(tried, interval, kappa=kappa, seed=seed)
        tried.append(Tried(rate, loss(rate)))
    return tried


def bowl(rate):
    """Least at 0.1."""
    return 0.5 + (math.log10(rate) + 1) ** 2


@given(
    low=st.floats(1e-10, 1e-2),
    times=st.floats(1.01, 1e8),
    losses=st.lists(st.floats(-1e3, 1e3) | st.just(NAN), max_size=4),
    kappa=st.sampled_from([0.0, 2.0, 1e6]),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=30)
def test_proposals_stay_in_the_interval_and_are_new(low, times, losses, kappa, seed):
    tried, interval = [], (low, low * times)
    for loss in [*losses, 0.0]:
        rate = propose(tried, interval, kappa=kappa, seed=seed)
        assert interval[0] <= rate <= interval[1]
        assert rate not in [one.learning_rate for one in tried]
        tried.append(Tried(rate, loss))


def test_the_same_seed_proposes_the_same():
    assert searched(bowl, 4, kappa=1e6, seed=7) == searched(bowl, 4, kappa=1e6, seed=7)
    assert searched(bowl, 1, kappa=1e6, seed=7) != searched(bowl, 1, kappa=1e6, seed=8)


def test_the_first_is_drawn_log_uniformly():
    drawn = [math.log10(propose([], (1e-4, 1.0), kappa=1e6, seed=seed)) for seed in range(400)]
    assert sum(log < -2 for log in drawn) == pytest.approx(200, abs=40)
    assert (min(drawn) < -3.9, max(drawn) > -0.1) == (True, True)


def test_without_kappa_it_goes_where_it_is_best():
    tried = [Tried(rate, bowl(rate)) for rate in (0.01, 0.02, 0.04, 0.25, 0.5, 1.0)]
    assert propose(tried, INTERVAL, kappa=0.0, seed=0) == pytest.approx(0.1, rel=0.1)


def test_a_large_kappa_goes_where_least_is_known():
    """Between 0.03 and 1, of which nothing is known."""
    tried = [Tried(rate, bowl(rate)) for rate in (0.01, 0.015, 0.02, 0.03, 1.0)]
    assert 0.08 < propose(tried, INTERVAL, kappa=1e6, seed=0) < 0.4


def test_a_search_of_ten_comes_near_to_the_best():
    tried = searched(bowl, 10, kappa=1.0)
    assert tried[best_of(tried)].learning_rate == pytest.approx(0.1, rel=0.1)


def test_a_diverged_trial_is_told_as_a_million():
    tried = [Tried(0.01, 0.5), Tried(0.03, 0.4), Tried(0.3, NAN), Tried(1.0, INF)]
    told = [one if math.isfinite(one.loss) else Tried(one.learning_rate, 1e6) for one in tried]
    assert propose(tried, INTERVAL, kappa=0.0, seed=3) == propose(told, INTERVAL, kappa=0.0, seed=3) < 0.3


@pytest.mark.parametrize(
    ("losses", "best"),
    [([0.5, 0.4, 0.6], 1), ([0.4, 0.4], 0), ([NAN, 0.7, -INF], 1), ([-1.0, 0.0], 0), ([NAN, INF], None), ([], None)],
)
def test_the_least_forecast_wins(losses, best):
    assert best_of([Tried(0.1, loss) for loss in losses]) == best
