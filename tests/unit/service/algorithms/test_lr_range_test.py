"""The decision of a range test: losses in, learning rate out."""

import math
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.lr_range_test import (
    RangeTest,
    curve_of,
    range_learning_rates,
    run_range_test,
    suggested_learning_rate,
)

NAN, INF = math.nan, math.inf
RATES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]


def run(losses, rates=RATES, smoothing=0.0, threshold=4.0):
    return run_range_test(rates, losses, smoothing=smoothing, threshold=threshold)


# --- the slow obvious reference ------------------------------------------------------------------------


def smoothed_obviously(losses, smoothing):
    """The weighted mean of all losses so far, that of j losses before weighing smoothing^j."""
    means = []
    for last in range(len(losses)):
        weights = [smoothing ** (last - number) for number in range(last + 1)]
        means.append(sum(w * loss for w, loss in zip(weights, losses, strict=False)) / sum(weights))
    return means


def tried_obviously(losses, smoothing, threshold):
    """How many iterations are run, and whether the last one has diverged."""
    means = smoothed_obviously(losses, smoothing)
    for number, mean in enumerate(means):
        before = means[:number]
        if not math.isfinite(mean) or (before and mean > threshold * min(before)):
            return number + 1, True
    return len(losses), False


LOSSES = st.lists(st.floats(0.01, 100), min_size=1, max_size=40)
BROKEN = st.lists(st.floats(0.01, 100) | st.sampled_from([NAN, INF]), min_size=1, max_size=40)


@given(
    losses=BROKEN, smoothing=st.sampled_from([0.0, 0.5, 0.9, 0.98]), threshold=st.sampled_from([math.sqrt(2), math.pi])
)
def test_it_is_the_reference(losses, smoothing, threshold):
    rates = range_learning_rates(1e-5, 1.0, len(losses))
    tried, diverged = tried_obviously(losses, smoothing, threshold)
    found = run(losses, rates, smoothing, threshold)
    means = smoothed_obviously(losses, smoothing)[:tried]
    assert list(found.smoothed_losses) == pytest.approx(means, rel=1e-9, nan_ok=True)
    assert (found.learning_rates, found.planned, found.diverged) == (rates[:tried], len(losses), diverged)


@given(losses=BROKEN, suggestion=st.sampled_from(["divergence", "steepest"]))
def test_what_is_suggested_has_been_tried_or_is_a_tenth_of_it(losses, suggestion):
    rates = range_learning_rates(1e-5, 1.0, len(losses))
    found = run(losses, rates)
    suggested = suggested_learning_rate(found, suggestion)
    if suggestion == "divergence":
        assert suggested == (found.learning_rates[-1] / 10 if math.isfinite(losses[0]) else None)
        return
    usable = found.smoothed_losses[: -1 if found.diverged else None]
    first = len(losses) // 10
    falls = [usable[i] - usable[i + 1] for i in range(first, len(usable) - 1)]
    if suggested is None:
        assert all(fall <= 0 for fall in falls)
    else:
        place = rates.index(suggested) - first
        assert falls[place] == max(falls) > 0


@given(
    losses=LOSSES, scale=st.sampled_from([0.25, 2.0, 1024.0]), suggestion=st.sampled_from(["divergence", "steepest"])
)
def test_the_unit_of_the_loss_does_not_matter(losses, scale, suggestion):
    """Powers of two are exact."""
    rates = range_learning_rates(1e-5, 1.0, len(losses))
    tests = [run(values, rates, smoothing=0.5) for values in (losses, [scale * loss for loss in losses])]
    assert tests[0].learning_rates == tests[1].learning_rates
    assert suggested_learning_rate(tests[0], suggestion) == suggested_learning_rate(tests[1], suggestion)


@given(low=st.floats(1e-10, 1e-2), times=st.floats(1.01, 1e8), iterations=st.integers(2, 500))
def test_learning_rates_rise_by_the_same_factor_from_end_to_end(low, times, iterations):
    rates = range_learning_rates(low, low * times, iterations)
    assert (len(rates), rates[0], rates[-1]) == (iterations, low, pytest.approx(low * times, rel=1e-12))
    assert max(rates) <= low * times
    factor = times ** (1 / (iterations - 1))
    assert [after / before for before, after in pairwise(rates)] == pytest.approx([factor] * (iterations - 1), rel=1e-9)


# --- written out ---------------------------------------------------------------------------------------


def test_learning_rates():
    assert range_learning_rates(1e-7, 10.0, 5) == pytest.approx([1e-7, 1e-5, 1e-3, 1e-1, 10.0], rel=1e-12)
    assert range_learning_rates(1e-7, 10.0, 1) == [1e-7]


def test_smoothing_by_a_half():
    """a_i = a/2 + loss/2 from 0: 2, 3, 2; divided by 1/2, 3/4, 7/8."""
    found = run([4.0, 4.0, 1.0], RATES[:3], smoothing=0.5)
    assert found.smoothed_losses == pytest.approx([4.0, 4.0, 16 / 7])
    assert not found.diverged


def test_the_usual_curve():
    """Flat, down, up: the steepest fall follows the step at 0.01; above 4 x 0.5 at 10."""
    found = run([2.4, 2.3, 2.2, 1.0, 0.5, 2.1])
    assert found == RangeTest(RATES, [2.4, 2.3, 2.2, 1.0, 0.5, 2.1], 6, diverged=True)
    assert suggested_learning_rate(found, "steepest") == 0.01
    assert suggested_learning_rate(found, "divergence") == 1.0


def test_no_loss_is_asked_for_behind_a_divergence():
    losses = iter([2.0, 1.0, 4.1, 3.0])
    assert run(losses).learning_rates == [1e-4, 1e-3, 1e-2]
    assert next(losses) == 3.0


def test_no_more_losses_are_asked_for_than_there_are_learning_rates():
    losses = count(1)
    assert run(losses, RATES[:3]).smoothed_losses == [1, 2, 3]
    assert next(losses) == 4


def test_four_times_the_least_is_not_above_it():
    assert not run([2.0, 1.0, 4.0]).diverged


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_a_loss_that_is_not_finite_is_a_divergence(broken):
    found = run([2.4, 2.3, 2.0, broken, 1.0, 1.0], smoothing=0.9)
    assert (found.diverged, found.learning_rates) == (True, [1e-4, 1e-3, 1e-2, 1e-1])
    assert suggested_learning_rate(found, "divergence") == pytest.approx(1e-2)
    assert suggested_learning_rate(found, "steepest") == 1e-3


def test_a_loss_that_never_diverges():
    """A tenth of the largest learning rate is on the safe side."""
    found = run([2.4, 2.3, 2.2, 2.0, 1.0, 0.9])
    assert not found.diverged
    assert suggested_learning_rate(found, "divergence") == 1.0
    assert suggested_learning_rate(found, "steepest") == 0.1


@pytest.mark.parametrize(
    ("losses", "divergence", "steepest"),
    [
        ([NAN], None, None),  # before any step: no learning rate is to blame
        ([2.0, NAN], 1e-4, None),  # the first step has gone too far
        ([2.0, 9.0], 1e-4, None),
        ([2.0, 1.0, NAN], 1e-3, 1e-4),
    ],
)
def test_divergence_at_once(losses, divergence, steepest):
    found = run(losses)
    assert found.diverged
    assert suggested_learning_rate(found, "divergence") == (divergence and pytest.approx(divergence))
    assert suggested_learning_rate(found, "steepest") == steepest


@pytest.mark.parametrize("losses", [[2.0], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
def test_a_loss_that_does_not_fall_has_no_steepest_point(losses):
    found = run(losses, RATES[: len(losses)])
    assert not found.diverged
    assert suggested_learning_rate(found, "steepest") is None


def test_the_first_tenth_suggests_nothing():
    """Of 20 iterations the first two falls, by 3 and 2, are noise; of the others the largest is that by 0.5."""
    losses = [9.0, 6.0, 4.0, 4.0, 3.5, 3.4, *[3.4] * 14]
    rates = range_learning_rates(1e-3, 1.0, 20)
    assert suggested_learning_rate(run(losses, rates), "steepest") == rates[3]


def test_of_equal_falls_the_first():
    assert suggested_learning_rate(run([3.0, 2.0, 1.0]), "steepest") == 1e-4


def test_a_curve_leaves_out_what_cannot_be_drawn():
    assert curve_of(run([2.4, 2.3, 1 / 3, INF])) == {
        "learning_rates": [1e-4, 1e-3, 1e-2],
        "smoothed_losses": [2.4, 2.3, 0.333333],
    }
    assert curve_of(run([NAN])) == {"learning_rates": [], "smoothed_losses": []}


def test_a_curve_has_a_hundred_points_at_most_and_the_last_one():
    """Of 250 every third, from the last one backwards: numbers 1, 4, …, 250, of which there are 84."""
    rates = [float(number) for number in range(1, 251)]
    found = curve_of(run([1.0] * 250, rates))
    assert len(found["learning_rates"]) == len(found["smoothed_losses"]) == 84
    assert found["learning_rates"][:2] == [1.0, 4.0]
    assert found["learning_rates"][-1] == 250.0
