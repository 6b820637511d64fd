"""The plan of a race: numbers of looks and iterations, within their share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.spec.race import RacePlan, Shares, race_plan, share_on_top, shared_out

MOST = st.integers(0, 1_000_000)
LOOKS = st.integers(1, 64)  # distinct factors, of three at least
SHARE = st.none() | st.floats(0.001, 0.9)


def test_the_plan_of_280_iterations() -> None:
    plan = race_plan(280, 5)
    assert plan == RacePlan(first_looks=5, wide=9, middle=27, final=81)
    assert plan.iterations == 7 * 9 + 4 * 27 + 2 * (81 - 27) == 279  # an odd one is left


def test_the_shortest_race() -> None:
    assert race_plan(12, 5) is None
    assert race_plan(13, 5) == RacePlan(first_looks=5, wide=1, middle=1, final=2)


@pytest.mark.parametrize(
    ("most", "looks", "plan"),
    [
        (14, 5, RacePlan(first_looks=5, wide=1, middle=1, final=2)),  # one is left
        (17, 5, RacePlan(first_looks=5, wide=1, middle=2, final=3)),
        (29, 5, RacePlan(first_looks=5, wide=1, middle=3, final=8)),
        (30, 5, RacePlan(first_looks=5, wide=1, middle=3, final=8)),
        (60, 5, RacePlan(first_looks=5, wide=2, middle=6, final=17)),
        (30_000, 5, RacePlan(first_looks=5, wide=1000, middle=3000, final=8500)),
        (30_000, 64, RacePlan(first_looks=64, wide=337, middle=1011, final=2868)),
        (9, 1, RacePlan(first_looks=1, wide=1, middle=1, final=2)),
    ],
)
def test_plans(most: int, looks: int, plan: RacePlan) -> None:
    assert race_plan(most, looks) == plan


@given(MOST, LOOKS)
def test_a_race_takes_what_it_may_but_for_one_iteration(most: int, looks: int) -> None:
    plan = race_plan(most, looks)
    if most < looks + 2 + 4 + 2:  # a step of every look, and one more of each finalist
        assert plan is None
        return
    assert plan is not None
    assert most - 1 <= plan.iterations <= most
    assert 1 <= plan.wide <= plan.middle < plan.final


@pytest.mark.parametrize(
    ("epochs", "share"), [(1, 0.25), (10, 0.25), (20, 0.158114), (30, 0.120943), (40, 0.1), (400, 0.1)]
)
def test_the_share_on_top_of_a_training(epochs: int, share: float) -> None:
    assert share_on_top(epochs) == pytest.approx(share, rel=1e-5)


def test_a_budget_of_12_epochs_of_62_iterations() -> None:
    shares = shared_out(None, 5, epochs=12, iterations=62, budget=744)
    assert shares == Shares(RacePlan(5, wide=3, middle=9, final=36), epochs=11, iterations=57)  # of 633


@pytest.mark.parametrize(
    ("budget", "share", "shares"),
    [
        (10, None, Shares(None, epochs=1, iterations=10)),  # less than an epoch
        (62, None, Shares(None, epochs=1, iterations=62)),
        (80, None, Shares(None, epochs=2, iterations=40)),  # 12 are too few for a race
        (124, 0.01, Shares(None, epochs=2, iterations=62)),
        (125, 0.01, Shares(None, epochs=2, iterations=62)),  # 3 epochs of 41 are fewer
        (130, 0.01, Shares(None, epochs=3, iterations=43)),
        (100, 0.9, Shares(RacePlan(5, wide=3, middle=9, final=25), epochs=1, iterations=11)),
    ],
)
def test_small_budgets(budget: int, share: float | None, shares: Shares) -> None:
    assert shared_out(share, 5, epochs=12, iterations=62, budget=budget) == shares


def test_without_a_budget_the_race_comes_on_top() -> None:
    shares = shared_out(None, 5, epochs=10, iterations=62, budget=None)
    assert (shares.epochs, shares.iterations) == (10, 62)
    assert shares.race is not None
    assert shares.race.iterations == 155  # a quarter of 620


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
