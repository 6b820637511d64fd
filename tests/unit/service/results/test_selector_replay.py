import math

from service.algorithms.selectors import BranchResult
from service.results.selector_replay import Replayed, StoredEpoch, replay
from service.spec.stpt import GreedySelector, ToleranceSelector


def stored(epoch, chosen, metrics, ends=None) -> StoredEpoch:
    """`metrics`: learning rate -> metric, numbered in that order."""
    branches = [BranchResult(number, rate, metric) for number, (rate, metric) in enumerate(metrics.items(), start=1)]
    number = next(branch.number for branch in branches if branch.learning_rate == chosen)
    return StoredEpoch(epoch, chosen, number, branches, ends or {})


EPOCHS = [
    stored(2, 0.1, {0.2: 0.49, 0.1: 0.5, 0.05: 0.4}, ends={1: 0.75, 2: 0.5}),
    stored(3, 0.4, {0.2: 0.6, 0.4: 0.7, 0.1: 0.5}, ends={2: 0.75, 3: 0.5}),
    stored(4, 0.1, {0.1: 0.5, 0.4: 0.5}),
]


def test_greedy_makes_the_recorded_choices_again():
    replayed = replay(GreedySelector(), EPOCHS, initial_learning_rate=0.1, maximize=True)
    assert replayed == [
        Replayed(2, 0.1, 0.1, 0.25),  # the branch at 0.2 ended 0.25 better
        Replayed(3, 0.4, 0.4, 0.0),
        Replayed(4, 0.1, 0.4, None),  # a tie: that nearest 0.4, which the job really had
    ]


def test_tolerance_takes_the_larger_one_that_is_nearly_as_good():
    # errors 0.51, 0.5, 0.6: 0.515 is still near; then 0.4, 0.3, 0.5: only the best is
    replayed = replay(ToleranceSelector(tolerance=0.03), EPOCHS, initial_learning_rate=0.1, maximize=True)
    assert [(step.replayed, step.regret) for step in replayed] == [(0.2, 0.0), (0.4, 0.0), (0.4, None)]


def test_losses_are_better_when_smaller():
    epochs = [stored(1, 0.1, {0.2: 1.0, 0.1: 0.5}, ends={1: 0.25, 2: 0.75})]
    [step] = replay(GreedySelector(), epochs, initial_learning_rate=0.1, maximize=False)
    assert step == Replayed(1, 0.1, 0.1, 0.5)


def test_where_every_branch_diverged_nothing_is_chosen():
    epochs = [stored(1, 0.1, {0.2: math.nan, 0.1: math.nan})]
    [step] = replay(GreedySelector(), epochs, initial_learning_rate=0.1, maximize=True)
    assert step == Replayed(1, 0.1, None, None)
    assert replay(GreedySelector(), [], initial_learning_rate=0.1, maximize=True) == []


def test_the_chosen_branch_stands_for_the_learning_rate_that_was_trained_between_it_and_another():
    branches = [BranchResult(1, 0.2, 0.5), BranchResult(2, 0.05, 0.75)]
    epochs = [StoredEpoch(1, 0.07, 2, branches, {})]
    [same] = replay(GreedySelector(), epochs, initial_learning_rate=0.1, maximize=True)
    [other] = replay(GreedySelector(), epochs, initial_learning_rate=0.1, maximize=False)
    assert (same, other) == (Replayed(1, 0.07, 0.07, None), Replayed(1, 0.07, 0.2, None))
