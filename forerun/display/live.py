"""Shows one job to a person: its facts, a row for each epoch, and live progress.

An epoch takes one row, and below it, indented, the branches of its Pre-train: learning rate and metric of each, the
chosen one marked `*`, in as many columns as the width has room for, and warnings about the choice. In a terminal a
progress bar stays below the rows; anywhere else the same rows come without colours and control characters.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from forerun.display.text import clean
from service.algorithms.choices import is_choice, warnings_of_choice, warnings_of_losses
from service.spec.names import printable
from service.spec.stpt import Metric
from service.wire.answers import (
    Branch,
    BranchOfEpoch,
    EpochEvent,
    EpochValues,
    Event,
    Job,
    StateEvent,
    TrialEvent,
    TrialResult,
)

INDENT = "    "
STATE_STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "recovering": "yellow"}
BRANCH_STYLES = {"chosen": "bold green", "eliminated": "dim", "diverged": "red", "rolled_back": "red"}


def follow(job: Job, events: Iterable[Event], console: Console) -> None:
    """Show `events` of `job` as they come, until there are no more."""
    live = console.is_terminal and not console.is_dumb_terminal
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} epochs"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not live,
    )
    _print(console, heading(job))
    _print(console, column_names(job))
    with bar:
        lengths, seen = _Lengths(job), set[tuple[str, int, int]]()
        task = bar.add_task(job.state.value, total=lengths.total)
        choices = _Choices(_metrics(job))
        for event in events:
            if isinstance(event, StateEvent):
                bar.update(task, description=event.state)
                _print(console, state_row(event))
            elif isinstance(event, TrialEvent):
                lengths.set(event, event.epochs)
                bar.update(task, total=lengths.total)
            elif isinstance(event, EpochEvent):
                told = choices.warnings(event, event.branches)
                _print(console, epoch_row(event, event.branches, lengths.of(event), console.width, told))
                seen.add(_key(event))
                bar.update(task, completed=len(seen), total=lengths.total)


def show(
    job: Job,
    trials: Sequence[TrialResult],
    epochs: Sequence[EpochValues],
    branches: Sequence[BranchOfEpoch],
    console: Console,
) -> None:
    """Print everything about a job: its facts, then a row for each epoch."""
    facts = [
        ("state", job.state),
        ("why", job.error and f"{job.error.message} ({job.error.code})"),
        ("epochs", f"{job.epochs_done} of {job.epochs}"),
        ("test accuracy", job.test_accuracy is not None and f"{job.test_accuracy:.4f}"),
        ("created", _time(job.created_at)),
        ("started", _time(job.started_at)),
        ("finished", _time(job.finished_at)),
        ("in Ray", job.submission_id),
    ]
    _print(console, heading(job))
    for name, value in facts:
        if value:
            _print(console, Text(f"{INDENT}{name:<13}  {clean(value)}"))
    if epochs:
        _print(console, column_names(job))
    choices, lengths = _Choices(_metrics(job)), _Lengths(job)
    for trial in trials:
        lengths.set(trial, trial.length)
    for epoch in epochs:
        its = [branch for branch in branches if _key(branch) == _key(epoch)]
        _print(console, epoch_row(epoch, its, lengths.of(epoch), console.width, choices.warnings(epoch, its)))


def heading(job: Job) -> Text:
    """The lines above the epochs of a job: its facts."""
    spec = job.spec
    workers = f"{spec['workers']} worker{'s' if spec['workers'] > 1 else ''}"
    what = f"{job.model} on {job.dataset}, {workers}, batch {spec['global_batch_size']}, seed {spec['seed']}"
    name = f" ({printable(job.name)})" if job.name else ""
    return Text.assemble((job.id, "bold"), f": {what}{name}")


def column_names(job: Job) -> Text:
    """The names of the columns of the rows of epochs."""
    names = _columns("epoch", "phase", "learning rate", "val acc", "test acc", "seconds", epochs=job.epochs)
    return Text(f"{names}\n{INDENT}each branch: learning rate {_judged_by(job)} (* chosen)", "dim")


def _judged_by(job: Job) -> str:
    """The metric that the branches of the job are judged by, or several where runs of stpt differ."""
    return " or ".join(dict.fromkeys(_metrics(job).values()))


def _metrics(job: Job) -> dict[str, Metric]:
    """The metric that branches are judged by in each run of stpt, by the run's label."""
    methods = [method for method in job.spec["methods"] if "metric" in method]
    return {method.get("label") or method["name"]: method["metric"] for method in methods}


class _Lengths:
    """The epochs of each training of a job: those that the job asks for, until more is known of it."""

    def __init__(self, job: Job) -> None:
        self._asked, self._trials = int(job.spec["epochs"]), job.trials
        self._known: dict[tuple[str, int], int] = {}

    def set(self, trial: TrialEvent | TrialResult, epochs: int) -> None:
        """Note how many epochs a training has: within a budget, or in a search, others than the job asks for."""
        self._known[trial.label, trial.trial] = epochs

    def of(self, epoch: EpochValues) -> int:
        """The epochs of the training that an epoch belongs to, which counts from then on."""
        return self._known.setdefault((epoch.label, epoch.trial), self._asked)

    @property
    def total(self) -> int:
        """The epochs of all trainings, also of those that nothing has been heard of yet."""
        return sum(self._known.values()) + max(0, self._trials - len(self._known)) * self._asked


class _Choices:
    """What the epochs shown so far tell of the choices of their trainings; `metrics` as `_metrics` gives them."""

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = metrics
        self._val_losses: dict[tuple[str, int], list[float | None]] = {}
        self._chosen_at: dict[tuple[str, int], int] = {}

    def warnings(self, epoch: EpochValues, branches: Sequence[Branch]) -> list[str]:
        """The warnings about the learning rate of an epoch, the next one of its training or one that is trained
        again; none where its run is not one of stpt."""
        if epoch.label not in self._metrics:
            return []
        training = epoch.label, epoch.trial
        if is_choice(branches):
            self._chosen_at[training] = epoch.epoch
        losses = self._val_losses.setdefault(training, [])
        losses[epoch.epoch - 1 :] = [epoch.val_loss]
        warnings = warnings_of_choice(branches, self._metrics[epoch.label])
        warnings += warnings_of_losses(losses, self._chosen_at.get(training))
        return [warning.message for warning in warnings]


def state_row(event: StateEvent) -> Text:
    """The row that tells that the job has moved to another state."""
    attempt = f" (attempt {event.attempt})" if event.attempt and event.attempt > 1 else ""
    return Text(f"{event.state}{attempt}", STATE_STYLES.get(event.state, "dim"))


def epoch_row(
    epoch: EpochValues, branches: Sequence[Branch], epochs: int, width: int, warnings: Sequence[str] = ()
) -> Text:
    """The row of an epoch and, below it, its branches and the warnings about its choice. `epochs` is the length of the
    training; no line is longer than `width` characters if it can be."""
    row = Text(
        _columns(
            f"{epoch.epoch}/{epochs}",
            _doing(epoch),
            f"{epoch.learning_rate:.4g}",
            f"{epoch.val_accuracy:.4f}",
            f"{epoch.test_accuracy:.4f}",
            f"{epoch.seconds:.1f}",
            epochs=epochs,
        )
    )
    for retry, group in groupby(branches, key=lambda branch: branch.retry):
        if retry:
            row.append(f"\n{INDENT}that came to nothing; retry {retry} with smaller learning rates:", "yellow")
        _append_branches(row, list(group), width)
    for warning in warnings:
        lines = textwrap.wrap(f"warning: {warning}", max(20, width - len(INDENT)))
        row.append("".join(f"\n{INDENT}{line}" for line in lines), "yellow")
    return row


def _doing(epoch: EpochValues) -> str:
    """The phase of STPT, behind the run's label where that is another; of other runs the label and the trial."""
    if epoch.phase == "scheduled" or epoch.method != "stpt":
        return f"{epoch.label} {epoch.trial}"
    return epoch.phase if epoch.label == epoch.method else f"{epoch.label} {epoch.phase}"


def _append_branches(row: Text, branches: Sequence[Branch], width: int) -> None:
    rates = [f"{'*' if branch.state == 'chosen' else ''}{branch.learning_rate:.4g}" for branch in branches]
    metrics = [branch.state if branch.metric is None else _metric(branch.metric) for branch in branches]
    rate_width, metric_width = max(map(len, rates)), max(map(len, metrics))
    across = max(1, (width - len(INDENT) + 2) // (rate_width + 1 + metric_width + 2))  # two spaces between cells
    for i, (branch, rate, metric) in enumerate(zip(branches, rates, metrics, strict=True)):
        row.append(f"\n{INDENT}" if i % across == 0 else "  ")
        last = (i + 1) % across == 0 or i + 1 == len(branches)
        row.append(f"{rate:>{rate_width}} {metric:<{0 if last else metric_width}}", BRANCH_STYLES.get(branch.state))


def _metric(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def _columns(epoch: str, phase: str, rate: str, val: str, test: str, seconds: str, *, epochs: int) -> str:
    return f"{epoch:>{max(5, 2 * len(str(epochs)) + 1)}}  {phase:<6}  {rate:>13}  {val:>7}  {test:>8}  {seconds:>8}"


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)  # lines are wrapped above, where it is known what belongs together


def _key(item: EpochValues | BranchOfEpoch) -> tuple[str, int, int]:
    return item.label, item.trial, item.epoch


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
