"""Which learning rate to begin with, by what past runs of stpt have chosen: values in, values out, no SQL.

Learning rates are those before lr_schedule. A run that had another batch counts with its learning rate scaled:
in proportion to the batch with sgd (Goyal et al. 2017, arXiv 1706.02677), with the square root of the proportion for
adaptive optimizers (Malladi et al. 2022, arXiv 2205.10287).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from service.spec.job import JobSpec
from service.spec.methods.base import Schedule
from service.spec.methods.stpt import StptMethod
from service.spec.scaling import Rule, scale
from service.spec.types import allowed_learning_rate
from service.store.records import EpochResult


@dataclass(frozen=True)
class PastRun:
    """One trial of stpt of a job that succeeded, with all its epochs in order. `spec` is the job's, with as many epochs
    as the trial had."""

    job_id: str
    spec: JobSpec
    method: StptMethod
    seed: int
    epochs: Sequence[EpochResult]


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
    fitting = [run for run in runs if optimizer in (None, run.spec.optimizer.name)]
    if not fitting:
        return None
    chosen_optimizer = optimizer or _best(fitting).spec.optimizer.name
    fitting = [run for run in fitting if run.spec.optimizer.name == chosen_optimizer]
    chosen_batch = batch or _best(fitting).spec.global_batch_size
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
        schedule=_schedule(best, _scale(best, chosen_batch)),
        rule=rule,
        note=_note(rule, sorted({run.spec.global_batch_size for run in near}), chosen_batch, chosen_optimizer),
        evidence=evidence,
    )


def settled_learning_rate(run: PastRun) -> float:
    """The learning rate that the search of a past run came to: the median of those from the last stage on, or, for a
    set that goes on searching, of every epoch behind the warm-up."""
    first = run.method.settled_epoch(run.spec)
    behind = [epoch.learning_rate for epoch in run.epochs if epoch.epoch >= first]
    return statistics.median_low(behind or [run.epochs[-1].learning_rate])


def _rule(optimizer: str) -> Rule:
    return "linear" if optimizer == "sgd" else "sqrt"


def _scale(run: PastRun, batch: int) -> float:
    return scale(_rule(run.spec.optimizer.name), batch=batch, base_batch=run.spec.global_batch_size)


def _evidence(run: PastRun, batch: int) -> Evidence:
    spec, best = run.spec, _best_epoch(run)
    learning_rate = settled_learning_rate(run)
    return Evidence(
        job_id=run.job_id,
        seed=run.seed,
        optimizer=spec.optimizer.name,
        global_batch_size=spec.global_batch_size,
        lr_schedule=spec.lr_schedule,
        learning_rate=learning_rate,
        scaled_learning_rate=allowed_learning_rate(learning_rate * _scale(run, batch)),
        val_accuracy=best.val_accuracy,
        test_accuracy=best.test_accuracy,
    )


def _best(runs: Sequence[PastRun]) -> PastRun:
    return max(runs, key=lambda run: _best_epoch(run).val_accuracy)


def _best_epoch(run: PastRun) -> EpochResult:
    return max(run.epochs, key=lambda epoch: epoch.val_accuracy)


def _distance(run: PastRun, batch: int) -> float:
    return abs(math.log(batch / run.spec.global_batch_size))


def _middle(rates: Sequence[float]) -> float:
    """The median; of an even number the geometric mean of the two in the middle."""
    low, high = statistics.median_low(rates), statistics.median_high(rates)
    return low if low == high else math.sqrt(low * high)


def _schedule(run: PastRun, factor: float) -> Schedule:
    return run.method.schedule_of(
        [allowed_learning_rate(epoch.learning_rate * factor) for epoch in run.epochs], run.spec, {}
    )


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
