"""The batch ramp; expected numbers by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.batch_ramp import Ramp, Step, ramp

START = Step(2048, 0.01, 0.9)  # Signer & Barbier, Fig. 6
BY_RATE = Step(4096, 0.01 * math.sqrt(2), 0.9)
BY_RATE_AGAIN = Step(8192, 0.02, 0.9)
BY_MOMENTUM = Step(8192, 0.01 * math.sqrt(2), 1 - 0.1 / math.sqrt(2))


def near(step: Step) -> object:
    return pytest.approx((step.global_batch_size, step.learning_rate, step.momentum))


def values(step: Step | None) -> tuple[float, ...]:
    assert step is not None
    return step.global_batch_size, step.learning_rate, step.momentum


@pytest.mark.parametrize(
    ("accuracies", "next_step"),
    [
        ([], START),
        ([0.98], BY_RATE),
        ([0.98, 0.985], BY_RATE_AGAIN),
        ([0.98, 0.976], BY_RATE_AGAIN),  # half a point is no fall
        ([0.98, 0.976, 0.972], BY_MOMENTUM),  # but it is one below the best of all, not below the one before
        ([0.98, 0.985, 0.97], BY_MOMENTUM),  # the second paper's: 8192 falls, and is tried again by momentum
        ([0.98, 0.97], Step(4096, 0.01, 1 - 0.1 / math.sqrt(2))),
        ([0.98, 0.97, 0.98], Step(8192, 0.01, 0.95)),
        ([0.98, 0.985, None], BY_MOMENTUM),  # one that diverges falls
    ],
)
def test_what_comes_next(accuracies, next_step):
    found = ramp(START, accuracies, tolerance=0.005, largest_batch=54_000)
    assert values(found.next) == near(next_step)


def test_it_reports_the_largest_batch_of_each_phase():
    found = ramp(START, [0.98, 0.985, 0.97, 0.983, 0.5], tolerance=0.005, largest_batch=54_000)
    assert found.next is None
    assert values(found.by_learning_rate) == near(BY_RATE)
    assert values(found.by_momentum) == near(BY_MOMENTUM)
    assert ramp(START, [], tolerance=0, largest_batch=54_000) == Ramp(START, None, None)


def test_it_ends_where_the_training_set_does():
    assert ramp(START, [0.98, 0.98], tolerance=0, largest_batch=8191).next is None
    found = ramp(START, [0.98, 0.98, 0.9], tolerance=0, largest_batch=8192)
    assert found.next is not None
    assert found.next.momentum > 0.9
    assert ramp(START, [0.98, 0.98, 0.9, 0.98], tolerance=0, largest_batch=8192).next is None


def test_a_training_that_diverges_falls_whatever_the_tolerance():
    found = ramp(START, [0.98, None, 0.98, None], tolerance=1.0, largest_batch=54_000)
    assert found.next is None
    assert values(found.by_learning_rate) == near(START)
    assert values(found.by_momentum) == near(Step(4096, 0.01, 1 - 0.1 / math.sqrt(2)))


@pytest.mark.parametrize("tolerance", [0.0, 0.005, 1.0])
def test_no_batch_is_good_where_the_first_training_diverges(tolerance):
    assert ramp(START, [None], tolerance=tolerance, largest_batch=54_000) == Ramp(None, None, None)


@given(st.lists(st.none() | st.floats(0, 1), max_size=40), st.integers(0, 12), st.floats(0, 0.1))
def test_every_ramp_ends_and_only_grows(accuracies, doublings, tolerance):
    largest = 64 * 2**doublings
    found = ramp(Step(64, 0.1, 0.9), [], tolerance=tolerance, largest_batch=largest)
    taken = 0
    while found.next is not None and taken < len(accuracies):
        taken += 1
        assert 64 <= found.next.global_batch_size <= largest
        assert found.next.momentum < 1
        found = ramp(Step(64, 0.1, 0.9), accuracies[:taken], tolerance=tolerance, largest_batch=largest)
    assert taken <= doublings + 2
