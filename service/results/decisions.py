"""Why a training of STPT (Yamada et al.) has the learning rates that it has: each choice with its candidates, the
numbers of its rule, what other selectors would have chosen, and warnings; and why a choice stands where none was made.
Values in, values out, no SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from service.algorithms.choices import (
    LOSSES,
    ChoiceWarning,
    JudgedBy,
    competing,
    is_choice,
    loss_of,
    warnings_of_choice,
    warnings_of_losses,
)
from service.algorithms.selectors import MAXIMIZE, SELECTORS, select
from service.results.selector_replay import Replayed, branch_result, replay, stored_epoch
from service.spec.job import JobSpec
from service.spec.lr_set import RaceLrSet, StagedLrSet
from service.spec.methods.stpt import StptMethod
from service.spec.race import FINALISTS
from service.spec.stpt import Metric, Selector, ToleranceSelector
from service.store.records import Branch, EpochWithBranches


@dataclass(frozen=True)
class BranchPoint:
    """The metric of a branch after so many iterations of its epoch."""

    iterations: int
    metric: float


@dataclass(frozen=True)
class Candidate:
    """One candidate of an epoch: what it was, what it was judged by, and what became of it."""

    number: int  # from 1, over all retries of the epoch
    retry: int
    learning_rate: float
    factor: float  # over the learning rate before the choice, to six digits
    metric: float | None  # None: not finite
    iterations: int  # from the epoch's start, after which it was judged
    seconds: float
    state: str
    curve: Sequence[BranchPoint]  # as much of its course as is stored


@dataclass(frozen=True)
class RatedRate:
    """A learning rate and the metric that it was judged by."""

    learning_rate: float
    metric: float


@dataclass(frozen=True)
class Rule:
    """The numbers by which a choice was made, in the metric.

    `margin` is how much better the chosen candidate was than the best of the others; negative where that was better.
    `threshold` is the worst metric that the selector took for nearly as good as the best. `ties` are the learning rates
    with the very metric of the chosen one; `passed_over` those that looked better and were not taken, for the guard
    skip_dead found their last weights to have learned nothing.
    """

    best: RatedRate | None
    runner_up: RatedRate | None
    margin: float | None
    threshold: float | None
    ties: Sequence[float]
    passed_over: Sequence[float]


@dataclass(frozen=True)
class Alternative:
    """What another selector would have chosen from the same branches, with its defaults. `regret` is how much better,
    in the metric, the best audited branch ended than its choice; None where that is not known."""

    selector: Mapping[str, Any]  # its name and its options
    learning_rate: float | None
    regret: float | None


@dataclass(frozen=True)
class Decision:
    """How an epoch came to its learning rate: by a choice between candidates, or by an earlier choice that stands.

    `current_learning_rate` is that before the epoch. `chosen_at` is the epoch of the last choice so far, this one
    included; None where there was none. `rule` is None, and `alternatives` is empty, where nothing was chosen.
    """

    epoch: int
    phase: str
    is_choice: bool
    chosen_at: int | None
    why: str
    current_learning_rate: float
    learning_rate: float
    first_learning_rate: float  # of the epoch's iterations, under lr_schedule
    last_learning_rate: float
    val_loss: float | None
    val_accuracy: float
    retries: int
    rollbacks: int
    regret: float | None  # by the audit: how much better the best loser ended
    candidates: Sequence[Candidate]
    rule: Rule | None
    alternatives: Sequence[Alternative]
    warnings: Sequence[ChoiceWarning]


@dataclass(frozen=True)
class Explanation:
    """How the epochs of one training, of the run `label`, came to their learning rates: what candidates are judged by,
    what chooses between them, with its options, and each epoch's decision, in order."""

    label: str
    metric: JudgedBy
    selector: Mapping[str, Any]
    decisions: Sequence[Decision]


def decisions_of(spec: JobSpec, method: StptMethod, epochs: Sequence[EpochWithBranches]) -> list[Decision]:
    """How each of the epochs, which are the first ones of one training by `method`, in order, came to its learning
    rate. `spec` is the job's, with the epochs of that training."""
    replayed = _replayed_by_others(spec, method, epochs)
    current, chosen_at, before = method.first_learning_rate(spec), None, None
    val_losses = list[float | None]()
    found = []
    for row in epochs:
        val_losses.append(row.val_loss)
        chooses = is_choice(row.branches)
        chosen_at = row.epoch if chooses else chosen_at
        found.append(
            decision_at(
                row,
                chosen_at=chosen_at,
                why=_why_chosen(method) if chooses else _why_it_stands(spec, method, row, current, chosen_at),
                current_learning_rate=current,
                candidates=_candidates(method, row, before, current, raced=chooses and method.races(spec)),
                rule=_rule(method, row, current) if chooses else None,
                alternatives=[
                    Alternative(selector.model_dump(), by_epoch[row.epoch].replayed, by_epoch[row.epoch].regret)
                    for selector, by_epoch in (replayed if chooses else ())
                ],
                warnings=[
                    *warnings_of_choice(row.branches, method.metric),
                    *warnings_of_losses(val_losses, chosen_at),
                ],
            )
        )
        # a warm-up does not touch the learning rate that the first Pre-train starts from
        current, before = current if row.phase == "warmup" else row.learning_rate, row
    return found


def decision_at(
    row: EpochWithBranches,
    *,
    chosen_at: int | None,
    why: str,
    current_learning_rate: float,
    candidates: Sequence[Candidate],
    rule: Rule | None,
    alternatives: Sequence[Alternative],
    warnings: Sequence[ChoiceWarning],
) -> Decision:
    """The decision of a recorded epoch: what the record has of it, and these."""
    return Decision(
        epoch=row.epoch,
        phase=row.phase,
        is_choice=is_choice(row.branches),
        chosen_at=chosen_at,
        why=why,
        current_learning_rate=current_learning_rate,
        learning_rate=row.learning_rate,
        first_learning_rate=row.first_learning_rate,
        last_learning_rate=row.last_learning_rate,
        val_loss=row.val_loss,
        val_accuracy=row.val_accuracy,
        retries=row.retries,
        rollbacks=row.rollbacks,
        regret=row.audit["regret"] if row.audit else None,
        candidates=candidates,
        rule=rule,
        alternatives=alternatives,
        warnings=warnings,
    )


# --- the branches ----------------------------------------------------------------------------------------


def _living(method: StptMethod, row: EpochWithBranches, current: float) -> tuple[list[Branch], list[Branch]]:
    """The branches that the selector was given in the end, and those that it would have preferred but was not given,
    since skip_dead, whose findings are not stored, had passed over them."""
    living, dead = competing(row.branches), list[Branch]()
    if row.epoch > 1 or not method.guards.skip_dead or method.metric == "train_accuracy":
        return living, dead
    chosen = [branch.number for branch in living if branch.state == "chosen"]
    while len(living) > 1 and (best := _selected(method, living, current)) not in (None, *chosen):
        dead += [branch for branch in living if branch.number == best]
        living = [branch for branch in living if branch.number != best]
    return living, dead


def _selected(method: StptMethod, branches: Sequence[Branch], current: float) -> int | None:
    """The number of the branch that the method's selector chooses at its first choice."""
    results = [branch_result(branch) for branch in branches]
    maximize = MAXIMIZE[method.metric]
    return select(method.selector, results, current_learning_rate=current, maximize=maximize, state={}).chosen


def _candidates(
    method: StptMethod, row: EpochWithBranches, before: EpochWithBranches | None, current: float, *, raced: bool
) -> list[Candidate]:
    start = None if before is None else _end_of_epoch(method.metric, before)
    looks = _looks_behind(row.branches) if raced else {}
    found = []
    for branch in row.branches:
        # behind a race the epoch is trained from its start: no look gets to its end
        points = {} if raced else {_iterations(row): _reached(method.metric, row, branch)}
        points[0] = start
        look, tried = looks.get(branch.number), branch.iterations
        if look is not None:
            points[look.iterations] = look.metric
            tried += look.iterations
        points[tried] = branch.metric
        found.append(
            Candidate(
                number=branch.number,
                retry=branch.retry,
                learning_rate=branch.learning_rate,
                factor=factor(branch.learning_rate, current),
                metric=branch.metric,
                iterations=tried,
                seconds=branch.seconds,
                state=branch.state,
                curve=[BranchPoint(after, value) for after, value in sorted(points.items()) if value is not None],
            )
        )
    return found


def factor(learning_rate: float, current: float) -> float:
    """A learning rate over the one before the choice, to six digits."""
    return float(f"{learning_rate / current:.6g}")


def _looks_behind(branches: Sequence[Branch]) -> dict[int, Branch]:
    """The look of a race that each of its finalists went on from, by the finalist's number."""
    looks = {look.learning_rate: look for look in branches[:-FINALISTS]}  # the last one of each learning rate
    return {one.number: looks[one.learning_rate] for one in branches[-FINALISTS:] if one.learning_rate in looks}


def _reached(metric: Metric, row: EpochWithBranches, branch: Branch) -> float | None:
    """The metric of a branch at the end of the epoch; None where it did not get there or that is not stored."""
    if branch.state == "chosen":
        return _end_of_epoch(metric, row)
    return None if metric == "train_accuracy" else branch.end_metric  # an audit validates


def _end_of_epoch(metric: Metric, row: EpochWithBranches) -> float | None:
    """The metric of the model after the epoch; None where it was not finite or is not stored."""
    return {"val_loss": row.val_loss, "val_accuracy": row.val_accuracy, "train_accuracy": None}[metric]


def _iterations(row: EpochWithBranches) -> int:
    """The iterations that made the model in the epoch, alpha + beta."""
    if not row.branches:
        return row.iterations
    main_trains = row.iterations - sum(branch.iterations for branch in row.branches)
    return row.branches[0].iterations + main_trains // (1 + row.rollbacks)


# --- the choice ------------------------------------------------------------------------------------------


def _rule(method: StptMethod, row: EpochWithBranches, current: float) -> Rule:
    living, dead = _living(method, row, current)
    rule = rule_between(living, method.metric)
    return replace(
        rule,
        threshold=None if rule.best is None else _threshold(method.selector, rule.best.metric, method.metric),
        passed_over=[branch.learning_rate for branch in dead],
    )


def rule_between(branches: Sequence[Branch], metric: JudgedBy) -> Rule:
    """The numbers of a choice between branches that are judged by `metric`, without threshold, and none passed over."""
    rated = [(branch, branch.metric) for branch in branches if branch.metric is not None]
    ranked = sorted(rated, key=lambda one: loss_of(one[1], metric))
    best = RatedRate(ranked[0][0].learning_rate, ranked[0][1]) if ranked else None
    chosen = next((value for branch, value in ranked if branch.state == "chosen"), None)
    others = [RatedRate(branch.learning_rate, value) for branch, value in ranked if branch.state != "chosen"]
    margin = None
    if chosen is not None and others:
        margin = (others[0].metric - chosen) if metric in LOSSES else (chosen - others[0].metric)
    return Rule(
        best=best,
        runner_up=others[0] if others else None,
        margin=margin,
        threshold=None,
        ties=[other.learning_rate for other in others if other.metric == chosen],
        passed_over=[],
    )


def _threshold(selector: Selector, best: float, metric: Metric) -> float | None:
    if not isinstance(selector, ToleranceSelector):
        return None
    limit = loss_of(best, metric) * (1 + selector.tolerance)
    return 1 - limit if MAXIMIZE[metric] else limit


def _replayed_by_others(
    spec: JobSpec, method: StptMethod, epochs: Sequence[EpochWithBranches]
) -> list[tuple[Selector, dict[int, Replayed]]]:
    """Every other selector, with its defaults, and what it would have chosen, by epoch."""
    current = start = method.first_learning_rate(spec)
    stored = []
    for row in epochs:
        if row.branches:
            stored.append(stored_epoch(row, _living(method, row, current)[0]))
            current = row.learning_rate
    others = [
        TypeAdapter[Selector](Selector).validate_python(name) for name in SELECTORS if name != method.selector.name
    ]
    maximize = MAXIMIZE[method.metric]
    return [
        (other, {step.epoch: step for step in replay(other, stored, initial_learning_rate=start, maximize=maximize)})
        for other in others
    ]


# --- why -------------------------------------------------------------------------------------------------


def _why_chosen(method: StptMethod) -> str:
    selector = method.selector
    return f"selector {selector.name} by {method.metric}: {type(selector).model_fields['name'].description}"


def _why_it_stands(
    spec: JobSpec, method: StptMethod, row: EpochWithBranches, current: float, chosen_at: int | None
) -> str:
    """Why an epoch without a choice has the learning rate that it has."""
    if row.phase == "warmup":
        return f"warm-up: the learning rate is set until epoch {method.warmup_epochs(spec.epochs)}, nothing is tried"
    if row.retries:
        return f"the training diverged or collapsed at {current:.4g}: the epoch was tried again at smaller ones"
    if method.races(spec) and chosen_at is None:
        whole = "budget" if method.holds_budget(spec) else "training"
        return f"the search's share of the {whole} is too short for a race: the initial learning rate was taken"
    searched = method.settled_epoch(spec)
    if isinstance(method.candidates_of(spec), StagedLrSet | RaceLrSet) and row.epoch > searched:
        follows = "stays as it is" if spec.lr_schedule == "constant" else f"follows its schedule ({spec.lr_schedule})"
        return f"the search ended after epoch {searched}; the learning rate {follows}"
    return "the learning-rate set has a single candidate at this epoch"
