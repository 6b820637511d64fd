import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.candidates import LR_SETS
from service.algorithms.selectors import MAXIMIZE, SELECTORS, BranchResult, Decision, select
from service.spec.methods.stpt import StptMethod
from service.spec.stpt import GreedySelector, ToleranceSelector

NAN, INF = math.nan, math.inf


def greedy(results, current, maximize):
    return select(GreedySelector(), results, current_learning_rate=current, maximize=maximize, state={}).chosen


def tolerance(share, results, maximize):
    selector = ToleranceSelector(tolerance=share)
    return select(selector, results, current_learning_rate=0.1, maximize=maximize, state={}).chosen


best_accuracy = partial(greedy, maximize=True)
least_loss = partial(greedy, maximize=False)


def branches(*results):
    """BranchResults numbered 1, 2, 3, … of (learning rate, metric)."""
    return [BranchResult(number, lr, metric) for number, (lr, metric) in enumerate(results, start=1)]


@pytest.mark.parametrize(
    ("results", "winner"),
    [
        ([(0.2, 0.61), (0.1, 0.639), (0.05, 0.622)], 2),
        ([(0.2, 0.64), (0.1, 0.639), (0.05, 0.622)], 1),
        ([(0.2, 0.0), (0.1, 0.0), (0.05, 0.001)], 3),
        ([(0.2, 0.9)], 1),
    ],
)
def test_the_highest_accuracy_wins(results, winner):
    assert best_accuracy(branches(*results), 0.1) == winner


@pytest.mark.parametrize(
    ("results", "winner"),
    [([(0.2, 2.30), (0.1, 1.75), (0.05, 1.76)], 2), ([(0.2, 0.3), (0.1, 0.0), (0.05, -0.5)], 3), ([(0.2, 9.0)], 1)],
)
def test_the_lowest_loss_wins(results, winner):
    assert least_loss(branches(*results), 0.1) == winner


def test_which_metrics_are_to_be_high():
    assert MAXIMIZE == {"val_accuracy": True, "train_accuracy": True, "val_loss": False}


def test_every_selector_and_metric_that_a_spec_may_name_exists():
    properties = StptMethod.model_json_schema()["properties"]
    assert set(MAXIMIZE) == set(properties["metric"]["enum"])
    names = properties["selector"]["anyOf"][0]["enum"]
    assert set(SELECTORS) == set(names)


@pytest.mark.parametrize("select", [best_accuracy, least_loss])
@pytest.mark.parametrize(
    ("current", "winner"),
    [(0.1, 3), (0.099, 3), (0.21, 2), (0.3, 2), (0.35, 1), (1.0, 1), (0.01, 4), (0.07, 3), (0.06, 4)],
)
def test_a_tie_goes_to_the_learning_rate_nearest_the_current_one(select, current, winner):
    # nearest as a ratio: 0.3 lies between 0.2 (x 1.5) and 0.5 (x 1.67), 0.07 between 0.1 (x 1.43) and 0.04 (x 1.75)
    assert select(branches((0.5, 0.7), (0.2, 0.7), (0.1, 0.7), (0.04, 0.7)), current) == winner


def test_only_a_tie_asks_for_the_nearest():
    assert best_accuracy(branches((0.5, 0.71), (0.1, 0.7), (0.04, 0.7)), 0.1) == 1


@pytest.mark.parametrize("select", [best_accuracy, least_loss])
def test_a_tie_at_equal_distance_goes_to_the_smaller(select):
    assert select(branches((0.2, 0.7), (0.05, 0.7)), 0.1) == 2
    assert select(branches((0.05, 0.7), (0.2, 0.7)), 0.1) == 1


@pytest.mark.parametrize("name", ["narrow", "middle", "wide"])
@given(current=st.floats(1e-6, 1.0))
def test_the_ends_of_the_papers_sets_are_at_equal_distance(name, current):
    high, low = LR_SETS[name][0], LR_SETS[name][-1]  # 1.25 and 0.8, 2.5 and 0.4, 5 and 0.2: reciprocals
    assert best_accuracy(branches((current * high, 0.5), (current * low, 0.5)), current) == 2


@pytest.mark.parametrize("select", [best_accuracy, least_loss])
@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_a_diverged_branch_never_wins(select, broken):
    assert select(branches((0.1, broken), (0.2, 0.01), (0.05, broken)), 0.1) == 2
    assert BranchResult(1, 0.1, broken).diverged
    assert not BranchResult(1, 0.1, 0.0).diverged


@pytest.mark.parametrize("select", [best_accuracy, least_loss])
def test_no_winner_when_every_branch_diverged(select):
    assert select(branches((0.2, NAN), (0.1, INF), (0.05, -INF)), 0.1) is None


def test_the_number_counts_not_the_place():
    assert best_accuracy([BranchResult(9, 0.1, 0.5), BranchResult(17, 0.2, 0.6)], 0.1) == 17


def test_extreme_learning_rates_can_be_compared():
    assert best_accuracy(branches((5e-324, 0.5), (1e6, 0.5)), 1e6) == 2
    assert best_accuracy(branches((5e-324, 0.5), (1e6, 0.5)), 5e-324) == 1


METRICS = st.sampled_from([0.1, 0.5, 0.9, NAN, INF]) | st.floats(-10, 10)
RESULTS = st.dictionaries(st.floats(1e-6, 1.0), METRICS, min_size=1, max_size=12).map(lambda d: branches(*d.items()))


@given(results=RESULTS, current=st.floats(1e-6, 1.0), maximize=st.booleans(), data=st.data())
def test_the_order_of_the_branches_does_not_matter(results, current, maximize, data):
    shuffled = data.draw(st.permutations(results))
    assert greedy(shuffled, current, maximize) == greedy(results, current, maximize)


@given(results=RESULTS, current=st.floats(1e-6, 1.0), maximize=st.booleans(), power=st.integers(-20, 20))
def test_the_scale_of_the_learning_rates_does_not_matter(results, current, maximize, power):
    scaled = [BranchResult(b.number, b.learning_rate * 2.0**power, b.metric) for b in results]
    assert greedy(scaled, current * 2.0**power, maximize) == greedy(results, current, maximize)


@given(results=RESULTS, current=st.floats(1e-6, 1.0), maximize=st.booleans())
def test_nobody_alive_is_better_than_the_winner(results, current, maximize):
    winner = greedy(results, current, maximize)
    alive = {b.number: b.metric for b in results if math.isfinite(b.metric)}
    if not alive:
        assert winner is None
    else:
        assert alive[winner] == (max if maximize else min)(alive.values())


# --- the largest within a tolerance ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "winner"),
    [(0.0, 3), (0.01, 3), (0.02, 2), (0.04, 2), (0.05, 1), (1.0, 1)],
)
def test_the_largest_learning_rate_whose_loss_is_near_the_best_wins(share, winner):
    # losses 0.525, 0.51, 0.5, 0.6: 5 %, 2 %, 0 and 20 % above the best
    assert tolerance(share, branches((0.2, 0.525), (0.14, 0.51), (0.1, 0.5), (0.07, 0.6)), False) == winner


@pytest.mark.parametrize(("share", "winner"), [(0.0, 2), (0.09, 2), (0.11, 1)])
def test_an_accuracy_is_judged_by_its_error(share, winner):
    # errors 0.22 and 0.2: 10 % above the best
    assert tolerance(share, branches((0.2, 0.78), (0.1, 0.8), (0.05, 0.7)), True) == winner


def test_a_diverged_branch_is_not_near_the_best():
    assert tolerance(1.0, branches((0.4, NAN), (0.2, 0.6), (0.1, 0.5), (0.3, INF)), False) == 2
    assert tolerance(1.0, branches((0.4, NAN)), False) is None


@given(results=RESULTS, maximize=st.booleans(), share=st.floats(0, 1))
def test_a_wider_tolerance_never_chooses_a_smaller_learning_rate(results, maximize, share):
    if maximize:
        results = [BranchResult(b.number, b.learning_rate, min(b.metric, 1.0)) for b in results]
    else:
        results = [BranchResult(b.number, b.learning_rate, abs(b.metric)) for b in results]
    rates = {b.number: b.learning_rate for b in results}
    narrow, wide = tolerance(0.0, results, maximize), tolerance(share, results, maximize)
    assert (narrow is None) == (wide is None)
    if narrow is not None:
        assert rates[wide] >= rates[narrow]
        best = greedy(results, 0.1, maximize)
        judged = {b.number: 1 - b.metric if maximize else b.metric for b in results}  # an accuracy by its error
        assert judged[narrow] == judged[best]


def test_a_selector_without_memory_hands_its_state_on():
    state = {"anything": [1, 2]}
    for selector in (GreedySelector(), ToleranceSelector()):
        for results, chosen in ((branches((0.1, 0.5)), 1), (branches((0.1, NAN)), None)):
            decision = select(selector, results, current_learning_rate=0.1, maximize=False, state=state)
            assert decision == Decision(chosen, state)
