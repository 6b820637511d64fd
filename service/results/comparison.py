"""What the methods of a job came to, and what it took them: values in, values out, no SQL.

A model is selected by its validation accuracy alone; the test accuracy beside it is that of the same epoch. Cost is
counted in training samples, those of every trial and of the search included. Audits and samples that a lost attempt
took for nothing are no part of it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.store.records import EpochCost

TARGET = "stpt"  # the method whose best validation accuracy the others are to reach; of several runs, the first's


@dataclass(frozen=True)
class SeedRun:
    """What a method did with one seed: the epochs of all its trials, in the order in which they were recorded."""

    seed: int
    trials: int
    lost_samples: int
    points: Sequence[EpochCost]


@dataclass(frozen=True)
class Run:
    """One run of a job: a method with its settings, with each seed."""

    label: str
    method: str
    by_seed: Sequence[SeedRun]


@dataclass(frozen=True)
class Best:
    """A point of an anytime curve: the accuracies of the best epoch so far, once `samples` training samples were
    processed."""

    samples: int
    val_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class Statistic:
    """A quantity over seeds: its mean, None where a seed has no number, and its sample standard deviation (`spread`),
    None also where there is one seed alone."""

    mean: float | None
    spread: float | None


@dataclass(frozen=True)
class SeedResult:
    """What a run came to with one seed that has recorded an epoch: the best validation accuracy, the test accuracy of
    the same epoch, and what they took. Durations are in seconds."""

    seed: int
    trials: int
    val_accuracy: float
    test_accuracy: float
    samples: int
    lost_samples: int
    evaluation_samples: int
    seconds: float  # of all epochs together, those that ran side by side included
    span_seconds: float | None  # from the first recorded epoch to the last; None: there is one alone
    samples_to_stpt: int | None  # until it was as good as stpt's best with this seed; None: never, or no such run
    relative_to_stpt: float | None  # that, over what stpt itself took until then
    curve: Sequence[Best]


@dataclass(frozen=True)
class RunResult:
    """What a run came to: statistics over the seeds that have recorded an epoch, of what SeedResult has for each."""

    label: str
    method: str
    trials: int
    seeds: int
    val_accuracy: Statistic
    test_accuracy: Statistic
    samples: Statistic
    lost_samples: Statistic
    evaluation_samples: Statistic
    seconds: Statistic
    span_seconds: Statistic
    samples_to_stpt: Statistic
    relative_to_stpt: Statistic
    by_seed: Sequence[SeedResult]


@dataclass(frozen=True)
class MeanPoint:
    """A point of the mean anytime curve: accuracies over several seeds, each after `samples` training samples."""

    samples: int
    val_accuracy: Statistic
    test_accuracy: Statistic


def compare(runs: Sequence[Run]) -> list[RunResult]:
    """Return the results of each run, in the order given; costs are relative to the first run of stpt with the same
    seed."""
    target = next((run.by_seed for run in runs if run.method == TARGET), ())
    targets = {seed.seed: anytime(seed.points) for seed in target}
    return [_run_result(run, targets) for run in runs]


def anytime(points: Sequence[EpochCost]) -> list[Best]:
    """The anytime curve of epochs in the order recorded: after each of them the best so far by validation accuracy, of
    equals the first, and the training samples taken until then."""
    curve: list[Best] = []
    samples = 0
    for point in points:
        samples += point.samples
        if not curve or point.val_accuracy > curve[-1].val_accuracy:
            curve.append(Best(samples, point.val_accuracy, point.test_accuracy))
        else:
            curve.append(Best(samples, curve[-1].val_accuracy, curve[-1].test_accuracy))
    return curve


def samples_to(curve: Sequence[Best], val_accuracy: float) -> int | None:
    """The training samples until an anytime curve reached that validation accuracy; None when it never did."""
    return next((best.samples for best in curve if best.val_accuracy >= val_accuracy), None)


def statistic(values: Sequence[float | None]) -> Statistic:
    """The mean and spread of a number for each seed. Where one is None there is no mean either: leaving out a seed that
    never got there would flatter."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Statistic(None, None)
    return Statistic(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def mean_curve(curves: Sequence[Sequence[Best]]) -> list[MeanPoint]:
    """The mean of the anytime curves of several seeds, from the cost at which each has its first epoch; one that has
    ended stays as it is. Empty where a seed has no epoch."""
    if not curves or not all(curves):
        return []
    first = max(curve[0].samples for curve in curves)
    costs = sorted({best.samples for curve in curves for best in curve if best.samples >= first})
    positions = [0] * len(curves)
    points = []
    for cost in costs:
        for number, curve in enumerate(curves):
            while positions[number] + 1 < len(curve) and curve[positions[number] + 1].samples <= cost:
                positions[number] += 1
        there = [curve[position] for curve, position in zip(curves, positions, strict=True)]
        points.append(
            MeanPoint(
                cost,
                statistic([best.val_accuracy for best in there]),
                statistic([best.test_accuracy for best in there]),
            )
        )
    return points


def _run_result(run: Run, targets: Mapping[int, Sequence[Best]]) -> RunResult:
    seeds = run.by_seed
    results = [_seed_result(seed, targets.get(seed.seed, ())) for seed in seeds if seed.points]
    return RunResult(
        label=run.label,
        method=run.method,
        trials=sum(seed.trials for seed in seeds),
        seeds=len(results),
        val_accuracy=statistic([result.val_accuracy for result in results]),
        test_accuracy=statistic([result.test_accuracy for result in results]),
        samples=statistic([result.samples for result in results]),
        lost_samples=statistic([result.lost_samples for result in results]),
        evaluation_samples=statistic([result.evaluation_samples for result in results]),
        seconds=statistic([result.seconds for result in results]),
        span_seconds=statistic([result.span_seconds for result in results]),
        samples_to_stpt=statistic([result.samples_to_stpt for result in results]),
        relative_to_stpt=statistic([result.relative_to_stpt for result in results]),
        by_seed=results,
    )


def _seed_result(run: SeedRun, target: Sequence[Best]) -> SeedResult:
    curve = anytime(run.points)
    needed = samples_to(curve, target[-1].val_accuracy) if target else None
    needed_by_stpt = samples_to(target, target[-1].val_accuracy) if target else None
    times = [point.recorded_at for point in run.points]
    return SeedResult(
        seed=run.seed,
        trials=run.trials,
        val_accuracy=curve[-1].val_accuracy,
        test_accuracy=curve[-1].test_accuracy,
        samples=curve[-1].samples,
        lost_samples=run.lost_samples,
        evaluation_samples=sum(point.evaluation_samples for point in run.points),
        seconds=math.fsum(point.seconds for point in run.points),
        span_seconds=(max(times) - min(times)).total_seconds() if len(times) > 1 else None,
        samples_to_stpt=needed,
        relative_to_stpt=needed / needed_by_stpt if needed is not None and needed_by_stpt else None,
        curve=curve,
    )
