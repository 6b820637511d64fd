"""Tables of the service's answers for a person, one line a row; telemetry of layers also as CSV."""

from collections.abc import Iterable, Sequence
from itertools import chain

from forerun.display.text import clean, table
from service.wire.answers import (
    LAYER_COLUMNS,
    ApiKey,
    BatchRamp,
    ComparedRun,
    ExperimentFacts,
    HistoryStep,
    Job,
    LayerEpoch,
    LrStep,
    Plan,
    Recommendation,
    SelectorReplay,
    Statistic,
    StudyRow,
    TrialResult,
    Webhook,
)
from service.wire.csv_text import csv_text

LONGEST_VALUE = 60  # of a hyperparameter, in characters


def job_table(jobs: Iterable[Job]) -> str:
    """A table of jobs, a row for each."""
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
                job.name,
            )
            for job in jobs
        ],
    )


def key_table(keys: Iterable[ApiKey]) -> str:
    """A table of API keys, a row for each."""
    return table(
        ("key", "owner", "scope", "made", "ends", "last used", "revoked", "name"),
        [
            (
                key.prefix,
                key.owner,
                key.scope,
                *(
                    "" if time is None else f"{time:%Y-%m-%d %H:%M}"
                    for time in (key.created_at, key.expires_at, key.last_used_at, key.revoked_at)
                ),
                key.name,
            )
            for key in keys
        ],
    )


def lr_table(steps: Sequence[LrStep]) -> str:
    """A table of the learning rates of a job, a row for each epoch; it has columns for the training where there are
    several."""
    several = len({(step.label, step.trial) for step in steps}) > 1
    whose = ("run", "trial") if several else ()
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
                *((step.label, str(step.trial)) if several else ()),
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
    """A table of what another selector would have chosen, a row for each epoch; it has a column for the trial where
    there are several."""
    several = len({step.trial for step in replayed.items}) > 1
    rows = [
        (
            *((str(step.trial),) if several else ()),
            str(step.epoch),
            f"{step.recorded_learning_rate:.4g}",
            "" if step.learning_rate is None else f"{step.learning_rate:.4g}",
            "" if step.regret is None else f"{step.regret:.4f}",
        )
        for step in replayed.items
    ]
    agreement = "no epoch yet" if replayed.agreement is None else f"the same in {replayed.agreement:.0%}"
    header = (*(("trial",) if several else ()), "epoch", "recorded", replayed.selector["name"], "regret")
    return f"{table(header, rows)}\n{agreement}"


def plan_table(plan: Plan) -> str:
    """A table of the forecast of a job, a row for each run."""
    rows = [
        (
            run.label,
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
    """A table of the studies that can be run."""
    rows = [(e.name, e.paper, e.figures, str(len(e.jobs)), e.description) for e in experiments]
    return table(("name", "paper", "figures", "jobs", "description"), rows)


def webhook_table(webhooks: Iterable[Webhook]) -> str:
    """A table of webhooks, a row for each, with how telling it goes."""
    rows = [(one.id, one.url, " ".join(one.events), _state_of(one)) for one in webhooks]
    return table(("webhook", "url", "events", "state"), rows)


def _state_of(webhook: Webhook) -> str:
    if webhook.disabled_at is not None:
        return f"disabled: {webhook.last_failure or ''}"
    if webhook.failures:
        return f"failed {webhook.failures} times: {webhook.last_failure or ''}"
    return "well" if webhook.delivered_at is not None else "nothing sent yet"


def trial_table(trials: Iterable[TrialResult]) -> str:
    """A table of trials, a row for each."""
    rows = [
        (
            trial.label,
            str(trial.trial),
            str(trial.seed),
            trial.state,
            f"{trial.epochs}/{trial.length}",
            str(trial.samples),
            _number(trial.learning_rate, ".4g"),
            _number(trial.val_accuracy, ".4f"),
            _number(trial.test_accuracy, ".4f"),
            " ".join(f"{key}={_short(value)}" for key, value in trial.config.items()),
        )
        for trial in trials
    ]
    header = ("run", "trial", "seed", "state", "epochs", "samples", "last rate", "val acc", "test acc", "config")
    return table(header, rows)


def comparison_table(runs: Iterable[ComparedRun]) -> str:
    """A table of the runs of a job, a row for each: means over the seeds, with the spread behind ± where there are
    several."""
    rows = [
        (
            run.label,
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
    header = ("run", "trials", "seeds", "val acc", "test acc", "samples", "evaluation", "seconds", "to stpt's best")
    return table((*header, "over stpt's"), rows)


def study_table(rows_: Iterable[StudyRow]) -> str:
    """A table of a study, a row for each variant and batch size: means over the seeds, with the spread behind ± where
    there are several."""
    rows = [
        (
            row.variant,
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
    """A table of batch ramps, with a row for each phase that has a batch size of undiminished accuracy."""
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
    """A table of the learning rates of all jobs, a row for each epoch."""
    rows = [
        (
            step.job_id,
            step.model,
            step.dataset,
            step.optimizer,
            str(step.global_batch_size),
            step.label,
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
    header = ("job", "model", "dataset", "optimizer", "batch", "run", "trial", "seed", "epoch", "phase")
    return table((*header, "learning rate", "val acc", "test acc", "samples"), rows)


def layer_table(epochs: Iterable[LayerEpoch]) -> str:
    """A table of the norms of layers, a row for each layer in each epoch, with its last sample."""
    rows = [
        (
            one.label,
            str(one.trial),
            str(one.epoch),
            one.layer,
            str(one.steps[-1]),
            *(_number(values[-1], ".4g") for values in (one.lwn, one.lgn, one.lnr)),
            "" if one.trust_ratio is None else _number(one.trust_ratio[-1], ".4g"),
        )
        for one in epochs
    ]
    return table(("run", "trial", "epoch", "layer", "step", "lwn", "lgn", "lnr", "trust ratio"), rows)


def layer_csv(epochs: Iterable[LayerEpoch]) -> str:
    """The telemetry of layers as CSV, a line for each sampled step, in the columns that the service has."""
    return csv_text(LAYER_COLUMNS, chain.from_iterable(one.table_rows() for one in epochs))


def recommendation_table(found: Recommendation) -> str:
    """A table of the recommended learning rate, with the past runs that it rests on."""
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
        f"for {found.optimizer}, batch {found.global_batch_size}\n{clean(found.note)}"
    )
    header = ("job", "seed", "batch", "lr_schedule", "learning rate", "scaled", "val acc", "test acc")
    return f"{facts}\n{table(header, rows)}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _statistic(value: Statistic, form: str) -> str:
    spread = value.spread
    return _number(value.mean, form) + ("" if spread is None else f" ± {spread:{form}}")


def _short(value: object) -> str:
    """The value as a cell shows it; of what is too long for a cell, such as a curve, the JSON answer tells."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return text if len(text := str(value)) <= LONGEST_VALUE else "…"
