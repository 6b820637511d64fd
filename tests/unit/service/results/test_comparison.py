from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.results.comparison import (
    Best,
    MeanPoint,
    Run,
    RunResult,
    SeedRun,
    Statistic,
    anytime,
    compare,
    mean_curve,
    samples_to,
)
from service.store.records import EpochCost

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NONE = Statistic(None, None)


def point(samples: int, val_accuracy: float, test_accuracy: float = 0.5, after: float = 0.0) -> EpochCost:
    """An epoch of 2.5 s with 100 evaluation samples, recorded `after` so many seconds."""
    return EpochCost(samples, val_accuracy, test_accuracy, 100, 2.5, NOON + timedelta(seconds=after))


def seed(number: int, *points: EpochCost, trials: int = 1, lost_samples: int = 0) -> SeedRun:
    return SeedRun(number, trials, lost_samples, points)


def compared(by_seed: dict[str, list[SeedRun]]) -> list[RunResult]:
    """Runs without labels of their own."""
    return compare([Run(method, method, seeds) for method, seeds in by_seed.items()])


STPT = seed(0, point(300, 0.5, 0.45), point(100, 0.8, 0.7, after=10), point(100, 0.75, 0.9, after=16))


def test_the_test_accuracy_is_that_of_the_epoch_with_the_best_validation_accuracy() -> None:
    [run] = compared({"stpt": [STPT]})
    assert (run.val_accuracy, run.test_accuracy) == (Statistic(0.8, None), Statistic(0.7, None))  # not 0.9
    [result] = run.by_seed
    assert result.curve == [Best(300, 0.5, 0.45), Best(400, 0.8, 0.7), Best(500, 0.8, 0.7)]
    assert (result.samples, result.evaluation_samples, result.seconds, result.span_seconds) == (500, 300, 7.5, 16.0)
    assert (result.samples_to_stpt, result.relative_to_stpt) == (400, 1.0)


def test_of_equal_validation_accuracies_the_first_counts() -> None:
    assert anytime([point(10, 0.8, 0.7), point(10, 0.8, 0.75)]) == [Best(10, 0.8, 0.7), Best(20, 0.8, 0.7)]


def test_cost_to_reach_the_best_of_stpt() -> None:
    faster = seed(0, point(100, 0.4), point(100, 0.85), trials=2, lost_samples=70)
    slower = seed(0, *[point(200, accuracy) for accuracy in (0.6, 0.7, 0.8, 0.9)])
    never = seed(0, point(1000, 0.79))
    runs = {run.method: run for run in compared({"tpe": [faster], "stpt": [STPT], "cosine": [slower], "asha": [never]})}
    assert list(runs) == ["tpe", "stpt", "cosine", "asha"]
    assert [run.samples_to_stpt.mean for run in runs.values()] == [200, 400, 600, None]
    assert [run.relative_to_stpt.mean for run in runs.values()] == [0.5, 1.0, 1.5, None]
    assert (runs["tpe"].trials, runs["tpe"].samples.mean, runs["tpe"].lost_samples.mean) == (2, 200, 70)
    assert runs["asha"].span_seconds == NONE  # a single epoch


def test_spread_over_seeds() -> None:
    seeds = [seed(0, point(100, 0.8, 0.7)), seed(1, point(300, 0.9, 0.8)), seed(2)]
    [run] = compared({"stpt": seeds})
    assert (run.seeds, run.trials) == (2, 3)  # the third has not begun
    assert run.val_accuracy.mean == pytest.approx(0.85)
    assert run.val_accuracy.spread == pytest.approx(0.0707107)  # 0.1 / sqrt(2)
    assert run.samples == Statistic(200, pytest.approx(141.42136))
    assert run.relative_to_stpt == Statistic(1.0, 0.0)


def test_each_seed_has_the_target_of_its_own_and_one_that_never_comes_there_leaves_no_mean() -> None:
    stpt = [seed(0, point(100, 0.5)), seed(1, point(100, 0.9))]
    other = [seed(0, point(50, 0.6)), seed(1, point(50, 0.8))]
    _, run = compared({"stpt": stpt, "cosine": other})
    assert [result.samples_to_stpt for result in run.by_seed] == [50, None]
    assert run.samples_to_stpt == run.relative_to_stpt == NONE


def test_without_stpt_and_without_an_epoch() -> None:
    reference, nothing = compared({"reference": [seed(0, point(100, 0.5))], "tpe": []})
    assert reference.samples_to_stpt == NONE
    assert (nothing.trials, nothing.seeds, nothing.val_accuracy, nothing.by_seed) == (0, 0, NONE, [])


def test_the_mean_curve_begins_where_every_seed_has_and_goes_on_where_one_has_ended() -> None:
    short = [Best(100, 0.4, 0.3), Best(200, 0.6, 0.5)]
    long = [Best(150, 0.5, 0.5), Best(300, 0.8, 0.7)]
    curve = mean_curve([short, long])
    assert [(p.samples, p.val_accuracy.mean, p.test_accuracy.mean) for p in curve] == [
        (150, pytest.approx(0.45), pytest.approx(0.4)),
        (200, pytest.approx(0.55), pytest.approx(0.5)),
        (300, pytest.approx(0.7), pytest.approx(0.6)),
    ]
    assert mean_curve([short])[0] == MeanPoint(100, Statistic(0.4, None), Statistic(0.3, None))
    assert mean_curve([]) == mean_curve([short, []]) == []


SHARE = st.floats(0, 1)
POINTS = st.lists(st.builds(point, st.integers(0, 2**40), SHARE, SHARE), min_size=1)


@given(POINTS)
def test_the_anytime_curve_never_falls_and_ends_at_the_cost_of_the_run(points: list[EpochCost]) -> None:
    curve = anytime(points)
    assert all(
        before.samples <= after.samples and before.val_accuracy <= after.val_accuracy
        for before, after in pairwise(curve)
    )
    [run] = compared({"stpt": [seed(0, *points)]})
    assert curve[-1].samples == sum(p.samples for p in points) == run.by_seed[0].samples
    assert curve[-1].val_accuracy == max(p.val_accuracy for p in points)
    assert {(best.val_accuracy, best.test_accuracy) for best in curve} <= {
        (p.val_accuracy, p.test_accuracy) for p in points
    }
    reached = samples_to(curve, curve[-1].val_accuracy)
    assert reached is not None
    assert reached <= curve[-1].samples
