"""Why a training by AutoLRS (Jin et al. 2021, arXiv 2105.10762) has the learning rates that it has: the trials of each
stage, and which of them was chosen. Values in, values out, no SQL."""

from collections.abc import Sequence

from service.algorithms.choices import JudgedBy, is_choice, warnings_of_choice, warnings_of_losses
from service.results.decisions import Candidate, Decision, decision_at, factor, rule_between
from service.spec.job import JobSpec
from service.spec.methods.autolrs import AutoLrsMethod, LrStage
from service.store.records import EpochWithBranches

FORECAST: JudgedBy = "forecast_loss"  # at the end of the stage, by an exponential through the losses of a trial


def decisions_of_stages(spec: JobSpec, method: AutoLrsMethod, epochs: Sequence[EpochWithBranches]) -> list[Decision]:
    """How each of the epochs, which are the first ones of one training by `method`, in order, came to its learning
    rate: by the choice at the start of its stage. `spec` is the job's, with the epochs of that training."""
    current, stage, chosen_at = spec.initial_learning_rate, None, None
    val_losses = list[float | None]()
    found = []
    for row in epochs:
        if row.branches:
            stage = _stage_of(spec, method, row)
        assert stage is not None, "a training begins with the trials of its first stage"
        val_losses.append(row.val_loss)
        chooses = is_choice(row.branches)
        chosen_at = row.epoch if chooses else chosen_at
        found.append(
            decision_at(
                row,
                chosen_at=chosen_at,
                why=_why(stage, chooses=chooses, tried=bool(row.branches)),
                current_learning_rate=current,
                candidates=_candidates(row, current),
                rule=rule_between(row.branches, FORECAST) if chooses else None,
                alternatives=[],
                warnings=[
                    *warnings_of_choice(row.branches, FORECAST, interval="search_interval"),
                    *warnings_of_losses(val_losses, chosen_at),
                ],
            )
        )
        current = row.learning_rate
    return found


def _stage_of(spec: JobSpec, method: AutoLrsMethod, row: EpochWithBranches) -> LrStage:
    """The stage that begins with the epoch, whose record tells how many iterations an epoch has."""
    tried = [branch.iterations for branch in row.branches]
    iterations = method.trained_iterations(spec, row.epoch, row.iterations, tried, row.rollbacks)
    return next(stage for stage in method.stages(spec.epochs, iterations) if stage.first_epoch == row.epoch)


def _why(stage: LrStage, *, chooses: bool, tried: bool) -> str:
    last = stage.first_epoch + stage.epochs - 1
    if chooses:
        losses = "validation losses" if stage.by_validation else "training losses"
        return f"the least loss that a trial's {losses} forecast for the end of the stage, epoch {last}, wins"
    if tried:
        return "a single learning rate is tried at the start of each stage"
    return f"the stage until epoch {last} is trained at the learning rate that was chosen at its start"


def _candidates(row: EpochWithBranches, current: float) -> list[Candidate]:
    """The trials of a stage. None is gone on with, and no loss of their course is stored."""
    return [
        Candidate(
            number=branch.number,
            retry=branch.retry,
            learning_rate=branch.learning_rate,
            factor=factor(branch.learning_rate, current),
            metric=branch.metric,
            iterations=branch.iterations,
            seconds=branch.seconds,
            state=branch.state,
            curve=(),
        )
        for branch in row.branches
    ]
