"""What a person sees of a job: its facts, a row an epoch, and live progress.

An epoch takes one row, and below it, indented, the branches of its Pre-train: learning rate and metric of each, the
chosen one marked `*`, in as many columns as the width has room for. In a terminal a progress bar stays below the rows;
anywhere else the same rows come without colours and control characters.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from service.wire.answers import (
    LAYER_COLUMNS,
    BatchRamp,
    Branch,
    BranchOfEpoch,
    ComparedRun,
    EpochEvent,
    EpochValues,
    Event,
    ExperimentFacts,
    HistoryStep,
    Job,
    LayerEpoch,
    LrStep,
    Plan,
    Recommendation,
    SelectorReplay,
    StateEvent,
    Statistic,
    StudyRow,
    TrialResult,
)

INDENT = "    "
STATE_STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "recovering": "yellow"}
BRANCH_STYLES = {"chosen": "bold green", "diverged": "red", "rolled_back": "red"}


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
        task = bar.add_task(job.state.value, total=job.epochs * job.trials)
        seen: set[tuple[str, int, int]] = set()
        for event in events:
            if isinstance(event, StateEvent):
                bar.update(task, description=event.state)
                _print(console, state_row(event))
            elif isinstance(event, EpochEvent):
                _print(console, epoch_row(event, event.branches, job.epochs, console.width))
                seen.add(_key(event))
                bar.update(task, completed=len(seen))


def show(job: Job, epochs: Sequence[EpochValues], branches: Sequence[BranchOfEpoch], console: Console) -> None:
    """Everything about a job: its facts, then a row an epoch."""
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
    for epoch in epochs:
        key = _key(epoch)
        _print(console, epoch_row(epoch, [b for b in branches if _key(b) == key], job.epochs, console.width))


def heading(job: Job) -> Text:
    spec = job.spec
    workers = f"{spec['workers']} worker{'s' if spec['workers'] > 1 else ''}"
    what = f"{job.model} on {job.dataset}, {workers}, batch {spec['global_batch_size']}, seed {spec['seed']}"
    name = f" ({clean(job.name)})" if job.name else ""
    return Text.assemble((job.id, "bold"), f": {what}{name}")


def column_names(job: Job) -> Text:
    names = _columns("epoch", "phase", "learning rate", "val acc", "test acc", "seconds", epochs=job.epochs)
    return Text(f"{names}\n{INDENT}each branch: learning rate {job.spec['metric']} (* chosen)", "dim")


def state_row(event: StateEvent) -> Text:
    attempt = f" (attempt {event.attempt})" if event.attempt and event.attempt > 1 else ""
    return Text(f"{event.state}{attempt}", STATE_STYLES.get(event.state, "dim"))


def epoch_row(epoch: EpochValues, branches: Sequence[Branch], epochs: int, width: int) -> Text:
    """The row of an epoch (of `epochs`) and the branches below it, no line longer than `width` if it can be."""
    row = Text(
        _columns(
            f"{epoch.epoch}/{epochs}",
            epoch.phase if epoch.phase != "scheduled" else f"{epoch.method} {epoch.trial}",
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
    return row


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


def job_table(jobs: Iterable[Job]) -> str:
    return table(
        ("job", "state", "model", "dataset", "epochs", "test acc", "name"),
        [
            (
                job.id,
                job.state,
                job.model,
                job.dataset,
                f"{job.epochs_done}/{job.epochs}",
                "" if job.test_accuracy is None else f"{job.test_accuracy:.4f}",
                clean(job.name),
            )
            for job in jobs
        ],
    )


def lr_table(steps: Sequence[LrStep]) -> str:
    """A line for each epoch; whose it is, where there are several trainings."""
    several = len({(step.method, step.trial) for step in steps}) > 1
    whose = ("method", "trial") if several else ()
    return table(
        (
            *whose,
            "epoch",
            "attempt",
            "phase",
            "learning rate",
            "of",
            "val acc",
            "test acc",
            "samples so far",
            "seconds",
        ),
        [
            (
                *((step.method, str(step.trial)) if several else ()),
                str(step.epoch),
                str(step.attempt),
                step.phase,
                f"{step.learning_rate:.4g}",
                str(len(step.candidates) or ""),
                f"{step.val_accuracy:.4f}",
                f"{step.test_accuracy:.4f}",
                str(step.samples_so_far),
                f"{step.seconds:.1f}",
            )
            for step in steps
        ],
    )


def replay_table(replayed: SelectorReplay) -> str:
    rows = [
        (
            str(step.epoch),
            f"{step.recorded_learning_rate:.4g}",
            "" if step.learning_rate is None else f"{step.learning_rate:.4g}",
            "" if step.regret is None else f"{step.regret:.4f}",
        )
        for step in replayed.items
    ]
    agreement = "no epoch yet" if replayed.agreement is None else f"the same in {replayed.agreement:.0%}"
    return f"{table(('epoch', 'recorded', replayed.selector['name'], 'regret'), rows)}\n{agreement}"


def plan_table(plan: Plan) -> str:
    rows = [
        (
            run.method,
            str(run.trainings),
            str(run.samples),
            f"{run.iterations:.0f}",
            f"{run.relative_to_sweep:.1%}",
            *("-" if phase is None else str(phase) for phase in (run.pretrain_iterations, run.main_train_iterations)),
        )
        for run in plan.runs
    ]
    header = ("run", "trainings", "samples", "iterations", "of the sweep", "Pre-train", "Main-train")
    return f"an epoch: {plan.iterations_per_epoch} iterations\n{table(header, rows)}"


def experiment_table(experiments: Iterable[ExperimentFacts]) -> str:
    rows = [(e.name, e.paper, e.figures, str(len(e.jobs)), e.description) for e in experiments]
    return table(("name", "paper", "figures", "jobs", "description"), rows)


def trial_table(trials: Iterable[TrialResult]) -> str:
    rows = [
        (
            trial.method,
            str(trial.trial),
            str(trial.seed),
            trial.state,
            f"{trial.epochs}/{trial.length}",
            str(trial.samples),
            _number(trial.learning_rate, ".4g"),
            _number(trial.val_accuracy, ".4f"),
            _number(trial.test_accuracy, ".4f"),
            clean(" ".join(f"{key}={_short(value)}" for key, value in trial.config.items())),
        )
        for trial in trials
    ]
    header = ("method", "trial", "seed", "state", "epochs", "samples", "last rate", "val acc", "test acc", "config")
    return table(header, rows)


def comparison_table(runs: Iterable[ComparedRun]) -> str:
    """Means over seeds, with the spread behind ± where there are several."""
    rows = [
        (
            run.method,
            str(run.trials),
            str(run.seeds),
            _statistic(run.val_accuracy, ".4f"),
            _statistic(run.test_accuracy, ".4f"),
            _statistic(run.samples, ".0f"),
            _statistic(run.evaluation_samples, ".0f"),
            _statistic(run.seconds, ".1f"),
            _statistic(run.samples_to_stpt, ".0f"),
            _statistic(run.relative_to_stpt, ".2f"),
        )
        for run in runs
    ]
    header = ("method", "trials", "seeds", "val acc", "test acc", "samples", "evaluation", "seconds", "to stpt's best")
    return table((*header, "over stpt's"), rows)


def study_table(rows_: Iterable[StudyRow]) -> str:
    """Means over seeds, with the spread behind ± where there are several."""
    rows = [
        (
            clean(row.variant),
            str(row.global_batch_size),
            str(row.seeds),
            str(row.diverged),
            _statistic(row.final_test_accuracy, ".4f"),
            _statistic(row.best_test_accuracy, ".4f"),
        )
        for row in rows_
    ]
    return table(("variant", "batch", "seeds", "diverged", "final test acc", "best test acc"), rows)


def ramp_table(ramps: Iterable[BatchRamp]) -> str:
    """A row for each phase that has a good batch."""
    rows = [
        (
            str(ramp.seed),
            phase,
            str(step.global_batch_size),
            f"{step.learning_rate:.4g}",
            f"{step.momentum:.4g}",
            f"{step.effective_learning_rate:.4g}",
        )
        for ramp in ramps
        for phase, step in (("learning rate", ramp.by_learning_rate), ("momentum", ramp.by_momentum))
        if step is not None
    ]
    return table(("seed", "scaled by", "largest batch", "learning rate", "momentum", "effective rate"), rows)


def history_table(steps: Iterable[HistoryStep]) -> str:
    rows = [
        (
            step.job_id,
            step.model,
            step.dataset,
            clean(step.optimizer),
            str(step.global_batch_size),
            step.method,
            str(step.trial),
            str(step.seed),
            str(step.epoch),
            step.phase,
            f"{step.learning_rate:.4g}",
            f"{step.val_accuracy:.4f}",
            f"{step.test_accuracy:.4f}",
            str(step.samples),
        )
        for step in steps
    ]
    header = ("job", "model", "dataset", "optimizer", "batch", "method", "trial", "seed", "epoch", "phase")
    return table((*header, "learning rate", "val acc", "test acc", "samples"), rows)


def layer_table(epochs: Iterable[LayerEpoch]) -> str:
    """The last sample of each layer in each epoch."""
    rows = [
        (
            one.method,
            str(one.trial),
            str(one.epoch),
            clean(one.layer),
            str(one.steps[-1]),
            *(_number(values[-1], ".4g") for values in (one.lwn, one.lgn, one.lnr)),
            "" if one.trust_ratio is None else _number(one.trust_ratio[-1], ".4g"),
        )
        for one in epochs
    ]
    return table(("method", "trial", "epoch", "layer", "step", "lwn", "lgn", "lnr", "trust ratio"), rows)


def layer_csv(epochs: Iterable[LayerEpoch]) -> str:
    """A line a sampled step, as the service has it."""
    writer = csv.DictWriter(text := io.StringIO(), LAYER_COLUMNS)
    writer.writeheader()
    for one in epochs:
        writer.writerows(one.table_rows())
    return text.getvalue()


def recommendation_table(found: Recommendation) -> str:
    rows = [
        (
            one.job_id,
            str(one.seed),
            str(one.global_batch_size),
            one.lr_schedule,
            f"{one.learning_rate:.4g}",
            f"{one.scaled_learning_rate:.4g}",
            f"{one.val_accuracy:.4f}",
            f"{one.test_accuracy:.4f}",
        )
        for one in found.evidence
    ]
    facts = (
        f"learning rate {found.learning_rate:.4g} ({found.low:.4g} to {found.high:.4g}) "
        f"for {found.optimizer}, batch {found.global_batch_size}\n{found.note}"
    )
    header = ("job", "seed", "batch", "lr_schedule", "learning rate", "scaled", "val acc", "test acc")
    return f"{facts}\n{table(header, rows)}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _statistic(value: Statistic, form: str) -> str:
    spread = value.spread
    return _number(value.mean, form) + ("" if spread is None else f" ± {spread:{form}}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need to be, one line a row whatever the width, so that grep and cut can read it."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def clean(text: str) -> str:
    """`text` without what could command a terminal: users name jobs as they like, and errors repeat what they wrote."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)  # lines are wrapped above, where it is known what belongs together


def _key(item: EpochValues | BranchOfEpoch) -> tuple[str, int, int]:
    return item.method, item.trial, item.epoch


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
