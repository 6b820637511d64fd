"""The plan of a race: numbers of looks and iterations, within their share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.spec.race import RacePlan, Shares, race_plan, share_on_top, shared_out

MOST = st.integers(0, 1_000_000)
LOOKS = st.integers(3, 64)
SHARE = st.none() | st.floats(0.001, 0.9)


def test_the_plan_of_280_iterations() -> None:
    plan = race_plan(280, 5)
    assert plan == RacePlan(first_looks=5, wide=9, middle=27, final=81)
    assert plan.iterations == 7 * 9 + 4 * 27 + 2 * (81 - 27) == 279  # an odd one is left


def test_the_shortest_race() -> None:
    assert race_plan(12, 5) is None
    assert race_plan(13, 5) == RacePlan(first_looks=5, wide=1, middle=1, final=2)


@given(MOST, LOOKS)
def test_a_race_takes_what_it_may_but_for_one_iteration(most: int, looks: int) -> None:
    plan = race_plan(most, looks)
    if plan is None:
        assert most < looks + 2 + 4 + 2 or most // 30 > 0
        return
    assert most - 1 <= plan.iterations <= most
    assert 1 <= plan.wide <= plan.middle < plan.final


@pytest.mark.parametrize(("epochs", "share"), [(1, 0.25), (10, 0.25), (20, 0.125), (25, 0.1), (40, 0.1), (400, 0.1)])
def test_the_share_on_top_of_a_training(epochs: int, share: float) -> None:
    assert share_on_top(epochs) == pytest.approx(share)


def test_a_budget_of_12_epochs_of_62_iterations() -> None:
    shares = shared_out(None, 5, epochs=12, iterations=62, budget=744)
    assert shares == Shares(RacePlan(5, wide=3, middle=9, final=36), epochs=11, iterations=57)  # of 633


def test_without_a_budget_the_race_comes_on_top() -> None:
    shares = shared_out(None, 5, epochs=10, iterations=62, budget=None)
    assert (shares.epochs, shares.iterations) == (10, 62)
    assert shares.race is not None and shares.race.iterations == 155  # a quarter of 620


@given(SHARE, LOOKS, st.integers(1, 400), st.integers(1, 5000), st.integers(1, 10**7))
def test_a_budget_is_kept_and_nearly_spent(
    share: float | None, looks: int, epochs: int, iterations: int, budget: int
) -> None:
    shares = shared_out(share, looks, epochs=epochs, iterations=iterations, budget=budget)
    race = 0 if shares.race is None else shares.race.iterations
    spent = race + shares.epochs * shares.iterations
    assert race <= (0.15 if share is None else share) * budget
    assert spent <= budget
    assert 1 <= shares.iterations <= iterations
    left = budget - race
    assert budget - spent < max(1, min(iterations, -(-left // iterations)))  # less than an epoch, and than its number


@given(SHARE, LOOKS, st.integers(1, 400), st.integers(1, 5000))
def test_a_race_on_top_keeps_to_its_share(share: float | None, looks: int, epochs: int, iterations: int) -> None:
    shares = shared_out(share, looks, epochs=epochs, iterations=iterations, budget=None)
    race = 0 if shares.race is None else shares.race.iterations
    assert race <= (share_on_top(epochs) if share is None else share) * epochs * iterations
    assert (shares.epochs, shares.iterations) == (epochs, iterations)
