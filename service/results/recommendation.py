"""Which learning rate to begin with, by what past runs of stpt have chosen: values in, values out, no SQL.

Learning rates are those before lr_schedule. A run that had another batch counts with its learning rate scaled:
in proportion to the batch with sgd (Goyal et al. 2017, arXiv 1706.02677), with the square root of the proportion for
adaptive optimizers (Malladi et al. 2022, arXiv 2205.10287).
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.spec.job import JobSpec
from service.spec.methods.base import Schedule
from service.spec.methods.stpt import StptMethod
from service.spec.scaling import Rule, scale
from service.spec.types import allowed_learning_rate
from service.store.records import EpochResult


@dataclass(frozen=True)
class PastRun:
    """What a trial of stpt of a job that succeeded trained by and came to: the learning rate that its search settled
    on, and the accuracies of its epoch with the best validation accuracy."""

    job_id: str
    seed: int
    optimizer: str
    global_batch_size: int
    lr_schedule: str
    learning_rate: float
    val_accuracy: float
    test_accuracy: float
    schedule: Callable[[float], Schedule]  # all its learning rates, multiplied by a factor; of the best run alone read


@dataclass(frozen=True)
class Evidence:
    """What a past run chose, and how good it became: the accuracies of its epoch with the best validation accuracy."""

    job_id: str
    seed: int
    optimizer: str
    global_batch_size: int
    lr_schedule: str
    learning_rate: float
    scaled_learning_rate: float  # for the batch that was asked for
    val_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class Recommendation:
    """The learning rate to begin with, and the evidence for it.

    `low` and `high` are the smallest and the largest learning rate that the evidence chose, `learning_rate` the one in
    its middle; the schedule is that of the run with the best validation accuracy. All are scaled to the batch.
    """

    optimizer: str
    global_batch_size: int
    learning_rate: float
    low: float
    high: float
    schedule: Schedule
    rule: Rule  # how learning rates of other batches were scaled; none: the evidence has this batch
    note: str
    evidence: Sequence[Evidence]


def recommend(runs: Sequence[PastRun], *, optimizer: str | None, batch: int | None) -> Recommendation | None:
    """Recommend a learning rate from runs of the same model and dataset; None without any run that fits.

    Without an optimizer, or a batch in samples, those of the run with the best validation accuracy are taken. Only the
    runs whose batch is nearest, in proportion, are evidence.
    """
    fitting = [run for run in runs if optimizer in (None, run.optimizer)]
    if not fitting:
        return None
    chosen_optimizer = optimizer or _best(fitting).optimizer
    fitting = [run for run in fitting if run.optimizer == chosen_optimizer]
    chosen_batch = batch or _best(fitting).global_batch_size
    nearest = min(_distance(run, chosen_batch) for run in fitting)
    near = [run for run in fitting if math.isclose(_distance(run, chosen_batch), nearest, abs_tol=1e-9)]
    evidence = [_evidence(run, chosen_batch) for run in near]
    rates = [one.scaled_learning_rate for one in evidence]
    best = _best(near)
    rule: Rule = "none" if nearest == 0 else _rule(chosen_optimizer)
    return Recommendation(
        optimizer=chosen_optimizer,
        global_batch_size=chosen_batch,
        learning_rate=_middle(rates),
        low=min(rates),
        high=max(rates),
        schedule=best.schedule(_scale(best, chosen_batch)),
        rule=rule,
        note=_note(rule, sorted({run.global_batch_size for run in near}), chosen_batch, chosen_optimizer),
        evidence=evidence,
    )


def settled_learning_rate(spec: JobSpec, method: StptMethod, epochs: Sequence[EpochResult]) -> float:
    """The learning rate that the search of a training by `method` came to, whose epochs are given in order: the median
    of those from the last stage on, or, for a set that goes on searching, of every epoch behind the warm-up. `spec` is
    the job's, with as many epochs as the training has at most."""
    first = method.settled_epoch(spec)
    behind = [epoch.learning_rate for epoch in epochs if epoch.epoch >= first]
    return statistics.median_low(behind or [epochs[-1].learning_rate])


def schedule_of(spec: JobSpec, method: StptMethod, epochs: Sequence[EpochResult], factor: float) -> Schedule:
    """The learning rates of such a training, each multiplied by `factor`, as a schedule to train by."""
    return method.schedule_of([allowed_learning_rate(epoch.learning_rate * factor) for epoch in epochs], spec, {})


def _rule(optimizer: str) -> Rule:
    return "linear" if optimizer == "sgd" else "sqrt"


def _scale(run: PastRun, batch: int) -> float:
    return scale(_rule(run.optimizer), batch=batch, base_batch=run.global_batch_size)


def _evidence(run: PastRun, batch: int) -> Evidence:
    return Evidence(
        job_id=run.job_id,
        seed=run.seed,
        optimizer=run.optimizer,
        global_batch_size=run.global_batch_size,
        lr_schedule=run.lr_schedule,
        learning_rate=run.learning_rate,
        scaled_learning_rate=allowed_learning_rate(run.learning_rate * _scale(run, batch)),
        val_accuracy=run.val_accuracy,
        test_accuracy=run.test_accuracy,
    )


def _best(runs: Sequence[PastRun]) -> PastRun:
    return max(runs, key=lambda run: run.val_accuracy)


def _distance(run: PastRun, batch: int) -> float:
    return abs(math.log(batch / run.global_batch_size))


def _middle(rates: Sequence[float]) -> float:
    """The median; of an even number the geometric mean of the two in the middle."""
    low, high = statistics.median_low(rates), statistics.median_high(rates)
    return low if low == high else math.sqrt(low * high)


def _note(rule: Rule, batches: Sequence[int], batch: int, optimizer: str) -> str:
    theirs = " and ".join(map(str, batches))
    match rule:
        case "none":
            return f"All evidence has batch {batch}; nothing was scaled."
        case "linear":
            how = "in proportion to the batch (Goyal et al. 2017, arXiv 1706.02677)"
        case "sqrt":
            how = "with the square root of the batch (Malladi et al. 2022, arXiv 2205.10287)"
    return f"The evidence has batch {theirs}; for batch {batch} its learning rates of {optimizer} were scaled {how}."
