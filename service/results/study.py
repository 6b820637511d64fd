"""What a study came to: a table of test accuracies, as papers have them; values in, values out, no SQL.

`final` is the test accuracy of a trial's last epoch, `best` the highest of all its epochs: the latter is what papers
often print, and it is selected by the test images. A trial that diverged has 0 in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean
from typing import Any

from service.results.comparison import Statistic, statistic
from service.spec.job import JobSpec
from service.spec.methods.study import StudyMethod

# Keys of a spec in which jobs of one table may differ: its points and seeds, and what is no choice of how to train.
FREE = {"name", "preset", "global_batch_size", "microbatch_size", "workers", "device", "seed", "seeds", "methods"}
FREE |= {"budget", "audit", "telemetry"}


COUNTED = ("completed", "diverged")  # states of a trial; what failed or still trains is in no row


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial of a study came to; `test_accuracies` are those of its recorded epochs in order, from 0 to 1."""

    variant: str
    global_batch_size: int
    seed: int
    state: str
    test_accuracies: Sequence[float]


@dataclass(frozen=True)
class StudyRow:
    """A line of a study's table: a variant at a batch size, with statistics over the seeds whose trial has ended."""

    variant: str
    global_batch_size: int
    seeds: int
    diverged: int  # of them
    final_test_accuracy: Statistic
    best_test_accuracy: Statistic
    curve: Sequence[float]  # mean test accuracy, epoch by epoch


def study_rows(methods: Sequence[StudyMethod], trials: Sequence[TrialOutcome]) -> list[StudyRow]:
    """Return a row for each variant and batch size of one study or several, in their order. Trials that failed or still
    train are in none; of two trials of a point with the same seed the later one counts."""
    points = dict.fromkeys(
        (variant.name, batch) for method in methods for variant in method.variants for batch in method.batch_sizes
    )
    ended = {
        (trial.variant, trial.global_batch_size, trial.seed): trial for trial in trials if trial.state in COUNTED
    }.values()
    return [
        _row(variant, batch, [t for t in ended if (t.variant, t.global_batch_size) == (variant, batch)])
        for variant, batch in points
    ]


def _row(variant: str, batch: int, trials: Sequence[TrialOutcome]) -> StudyRow:
    return StudyRow(
        variant=variant,
        global_batch_size=batch,
        seeds=len(trials),
        diverged=sum(trial.state == "diverged" for trial in trials),
        final_test_accuracy=statistic([0.0 if t.state == "diverged" else t.test_accuracies[-1] for t in trials]),
        best_test_accuracy=statistic([max(t.test_accuracies, default=0.0) for t in trials]),
        curve=_mean_curve(trials),
    )


def _mean_curve(trials: Sequence[TrialOutcome]) -> list[float]:
    """A trial that diverged has 0 from the epoch on in which it did; of a search that epoch is not recorded."""
    curves = [
        [*t.test_accuracies, 0.0] if t.state == "diverged" and t.test_accuracies[-1:] != [0.0] else t.test_accuracies
        for t in trials
    ]
    return [fmean(accuracies) for accuracies in zip_longest(*curves, fillvalue=0.0)]


def common_to_a_table(spec: JobSpec) -> dict[str, Any]:
    """What must be equal in jobs whose studies are to be one table, by name: all keys of the spec but FREE, and each
    variant at each batch size."""
    points = {
        f"variant {variant.name!r} at batch {batch}": variant
        for method in spec.methods_of(StudyMethod)
        for variant in method.variants
        for batch in method.batch_sizes
    }
    common = {name: getattr(spec, name) for name in JobSpec.model_fields if name not in FREE}
    return common | {"dataset": spec.dataset.model_dump(exclude={"download"})} | points
