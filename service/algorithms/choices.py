"""What the branches of a Pre-train (STPT, Yamada et al., Algorithm 1) tell of the choice between them: which of them
competed in the end, and what a user is to be warned of. Values in, decisions out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, TypeVar

from service.spec.stpt import Metric

TIE = 0.01  # of the best loss or error: branches that differ by less are as good as each other
RISES = 3  # epochs in a row with a higher validation loss than the one before, from which on it is told

# what branches are judged by: the metric of stpt, or the loss that autolrs forecasts for the end of a stage
JudgedBy = Metric | Literal["forecast_loss"]
LOSSES: frozenset[JudgedBy] = frozenset({"val_loss", "forecast_loss"})

WarningCode = Literal["lowest_tried", "highest_tried", "all_tie", "one_left", "loss_rising"]


class Tried(Protocol):
    """A branch as it is judged: its Pre-train (0, or the number of the retry), learning rate, metric (None where it was
    not finite) and state."""

    @property
    def retry(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def metric(self) -> float | None: ...
    @property
    def state(self) -> str: ...


@dataclass(frozen=True)
class ChoiceWarning:
    """A warning about a choice of a learning rate: its code, and a sentence that says it in plain words."""

    code: WarningCode
    message: str


_Branch = TypeVar("_Branch", bound=Tried)


def is_choice(branches: Sequence[Tried]) -> bool:
    """Whether the epoch with these branches, retries included, had several candidates to choose from."""
    return sum(branch.retry == 0 for branch in branches) > 1


def competing(branches: Sequence[_Branch]) -> list[_Branch]:
    """The branches of an epoch that competed in the end: those of the last retry that no race eliminated, and after a
    rollback only those with smaller learning rates than the ones undone."""
    last = max((branch.retry for branch in branches), default=0)
    undone = [branch.learning_rate for branch in branches if branch.state == "rolled_back"]
    return [
        branch
        for branch in branches
        if branch.retry == last and branch.state != "eliminated" and (not undone or branch.learning_rate < min(undone))
    ]


def loss_of(metric: float, name: JudgedBy) -> float:
    """What is to be small in a metric: a loss as it is, or the error of an accuracy, 1 - accuracy."""
    return metric if name in LOSSES else 1 - metric


def warnings_of_choice(branches: Sequence[Tried], metric: JudgedBy, *, interval: str = "lr_set") -> list[ChoiceWarning]:
    """The warnings about the choice between these branches, which are all of one epoch's; none where the epoch had
    nothing to choose from. `metric` is what they were judged by, `interval` the setting to widen where the choice lies
    at an end.

    The choice lies at an end of what the epoch tried; all branches that competed tie, within `TIE` of the best; all of
    them but the chosen one diverged.
    """
    chosen = next((branch for branch in branches if branch.state == "chosen"), None)
    if chosen is None or not is_choice(branches):
        return []
    warnings = _at_an_end(chosen.learning_rate, [branch.learning_rate for branch in branches], interval)
    finalists = competing(branches)
    what = "finalist" if any(branch.state == "eliminated" for branch in branches) else "candidate"
    metrics = [branch.metric for branch in finalists if branch.metric is not None]
    losses = [loss_of(value, metric) for value in metrics]
    if len(finalists) > len(metrics) == 1:
        message = f"every {what} but {chosen.learning_rate:.4g} diverged: it may be close to diverging itself"
        warnings.append(ChoiceWarning("one_left", message))
    if len(losses) > 1 and max(losses) - min(losses) <= TIE * abs(min(losses)):
        which = f"all {len(losses)} {what}s" if len(losses) == len(finalists) else f"the {len(losses)} left"
        between = f"{metric} {min(metrics):.4g} to {max(metrics):.4g}"
        message = f"{which} are as good as each other ({between}): the choice between them says little"
        warnings.append(ChoiceWarning("all_tie", message))
    return warnings


def warnings_of_losses(val_losses: Sequence[float | None], chosen_at: int | None) -> list[ChoiceWarning]:
    """The warning that the validation loss has risen for `RISES` epochs in a row or longer, if it has. `val_losses` are
    those of a training's epochs so far, in order; None, not finite, ends a row. `chosen_at` is the epoch of the last
    choice of a learning rate; None: there was none."""
    rises = 0
    for later, earlier in pairwise(reversed(val_losses)):
        if later is None or earlier is None or later <= earlier:
            break
        rises += 1
    if rises < RISES:
        return []
    choice = "no learning rate was chosen" if chosen_at is None else f"the last choice was made at epoch {chosen_at}"
    message = (
        f"the validation loss has risen for {rises} epochs in a row, "
        f"from {val_losses[-1 - rises]:.4g} to {val_losses[-1]:.4g}; {choice}"
    )
    return [ChoiceWarning("loss_rising", message)]


def _at_an_end(chosen: float, tried: Sequence[float], interval: str) -> list[ChoiceWarning]:
    if len(set(tried)) < 2:
        return []
    if chosen == min(tried):
        message = (
            f"{chosen:.4g} is the lowest learning rate that was tried: a lower one may be better, widen {interval}"
        )
        return [ChoiceWarning("lowest_tried", message)]
    if chosen == max(tried):
        message = (
            f"{chosen:.4g} is the highest learning rate that was tried: a higher one may be better, widen {interval}"
        )
        return [ChoiceWarning("highest_tried", message)]
    return []
