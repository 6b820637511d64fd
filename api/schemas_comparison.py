"""What the API answers about trials, methods side by side, studies and ramps, and the history of all jobs."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

from pydantic import Field

from api.schemas import Schema, example
from service.algorithms import batch_ramp as ramp
from service.results import recommendation
from service.spec.methods.base import Schedule
from service.store import tables

# Examples: stpt beside a search on the digits, one seed each.
_JOB_ID = "job-0123456789abcdef"
_TRIAL = {
    "method": "asha",
    "trial": 2,
    "seed": 0,
    "config": {"learning_rate": 0.21},
    "state": "stopped",
    "message": "stopped at a rung",
    "epochs": 3,
    "length": 10,
    "samples": 3840,
    "lost_samples": 0,
    "val_accuracy": 0.9097,
    "test_accuracy": 0.9,
    "best_epoch": 3,
    "learning_rate": 0.21,
    "last_learning_rate": 0.147,
}
_SEED = {
    "seed": 0,
    "trials": 1,
    "val_accuracy": 0.9583,
    "test_accuracy": 0.9472,
    "samples": 12800,
    "lost_samples": 0,
    "evaluation_samples": 5040,
    "seconds": 14.2,
    "span_seconds": 12.9,
    "samples_to_stpt": 11520,
    "relative_to_stpt": 1.0,
    "curve": [
        {"samples": 6400, "val_accuracy": 0.9097, "test_accuracy": 0.8917},
        {"samples": 12800, "val_accuracy": 0.9583, "test_accuracy": 0.9472},
    ],
}
_NOT_STATISTICS = {"method": "stpt", "trials": 1, "seeds": 1, "by_seed": [_SEED]}
_RUN = _NOT_STATISTICS | {
    name: {"mean": _SEED[name], "spread": None}
    for name in (
        *("val_accuracy", "test_accuracy", "samples", "lost_samples", "evaluation_samples", "seconds", "span_seconds"),
        *("samples_to_stpt", "relative_to_stpt"),
    )
}
_STUDY_ROW = {
    "variant": "linear",
    "global_batch_size": 1024,
    "seeds": 3,
    "diverged": 0,
    "final_test_accuracy": {"mean": 0.9883, "spread": 0.0007},
    "best_test_accuracy": {"mean": 0.9891, "spread": 0.0005},
}
_RAMP_STEP = {"global_batch_size": 4096, "learning_rate": 0.0141, "momentum": 0.9, "effective_learning_rate": 0.141}
_RAMP = {"seed": 0, "by_learning_rate": _RAMP_STEP, "by_momentum": None}
_STEP = {
    "job_id": _JOB_ID,
    "model": "lenet5",
    "dataset": "digits",
    "optimizer": "sgd",
    "global_batch_size": 64,
    "method": "stpt",
    "trial": 1,
    "seed": 0,
    "epoch": 3,
    "phase": "stpt",
    "learning_rate": 0.085,
    "first_learning_rate": 0.068,
    "last_learning_rate": 0.0596,
    "val_accuracy": 0.9236,
    "test_accuracy": 0.925,
    "samples": 2176,
}
_EVIDENCE = {
    "job_id": _JOB_ID,
    "seed": 0,
    "optimizer": "sgd",
    "global_batch_size": 64,
    "envelope": "linear",
    "learning_rate": 0.1,
    "scaled_learning_rate": 0.2,
    "val_accuracy": 0.9583,
    "test_accuracy": 0.9472,
}
_RECOMMENDATION = {
    "model": "lenet5",
    "dataset": "digits",
    "optimizer": "sgd",
    "global_batch_size": 128,
    "learning_rate": 0.2,
    "low": 0.2,
    "high": 0.2,
    "schedule": {"learning_rates": [0.2, 0.2, 0.2], "envelope": "linear", "warmup_epochs": 0},
    "rule": "linear",
    "note": "The evidence has batch 64; for batch 128 its learning rates of sgd were scaled in proportion to the batch "
    "(Goyal et al. 2017, arXiv 1706.02677).",
    "evidence": [_EVIDENCE],
}


class TrialResult(Schema):
    """One training of a method. `val_accuracy` is its best; `test_accuracy` is that of the same epoch."""

    model_config = example(_TRIAL)

    method: str
    trial: int = Field(description="Its number in the method, from 1.")
    seed: int
    config: dict[str, Any] = Field(description="Hyperparameters that a search has chosen.")
    state: str = Field(description="pending, running, completed, stopped, diverged or failed")
    message: str | None = Field(description="Why it ended before its last epoch.")
    epochs: int = Field(description="Recorded.")
    length: int = Field(description="Epochs that it trains at most.")
    samples: int = Field(description="Training samples of the recorded epochs, search included.")
    lost_samples: int = Field(description="Of epochs that a lost attempt had recorded and the next one trained again.")
    val_accuracy: float | None = Field(description="null: no epoch is recorded yet, as in all that follow.")
    test_accuracy: float | None
    best_epoch: int | None = Field(description="The epoch with the best validation accuracy; of equals the first.")
    learning_rate: float | None = Field(description="Of the last epoch, before the envelope.")
    last_learning_rate: float | None = Field(description="Of its last iteration, under the envelope.")

    @classmethod
    def of(
        cls,
        method: str,
        trial: tables.Trial,
        epochs: int,
        samples: int,
        best: tables.Epoch | None,
        last: tables.Epoch | None,
    ) -> Self:
        return cls(
            method=method,
            trial=trial.number,
            seed=trial.seed,
            config=trial.config or {},
            state=trial.state,
            message=trial.message,
            epochs=epochs,
            length=trial.length,
            samples=samples,
            lost_samples=trial.lost_samples,
            val_accuracy=best.val_accuracy if best else None,
            test_accuracy=best.test_accuracy if best else None,
            best_epoch=best.epoch if best else None,
            learning_rate=last.learning_rate if last else None,
            last_learning_rate=last.last_learning_rate if last else None,
        )


class TrialList(Schema):
    model_config = example({"job_id": _JOB_ID, "items": [_TRIAL]})

    job_id: str
    items: list[TrialResult]


class Statistic(Schema):
    """Over the seeds of a method."""

    model_config = example({"mean": 0.9583, "spread": 0.0049})

    mean: float | None = Field(description="null: there is no number for each of the seeds.")
    spread: float | None = Field(description="Sample standard deviation; null with one seed.")


class CurvePoint(Schema):
    """The best epoch so far, once so many training samples were processed."""

    model_config = example(*_SEED["curve"][:1])  # type: ignore[index]

    samples: int
    val_accuracy: float
    test_accuracy: float


class SeedComparison(Schema):
    """What a method came to with one seed."""

    model_config = example(_SEED)

    seed: int
    trials: int
    val_accuracy: float = Field(description="The best of all its trials.")
    test_accuracy: float = Field(description="Of the epoch with that validation accuracy.")
    samples: int = Field(description="Training samples of all trials, search included; audits are no part of it.")
    lost_samples: int = Field(description="Beside them: of epochs that were trained twice after a lost attempt.")
    evaluation_samples: int
    seconds: float = Field(description="Of all epochs together, those that ran side by side included.")
    span_seconds: float | None = Field(description="From the first recorded epoch to the last; null: one alone.")
    samples_to_stpt: int | None = Field(
        description="Training samples until it was as good as stpt's best with this seed; null: never, or no stpt."
    )
    relative_to_stpt: float | None = Field(description="That, over what stpt itself needed.")
    curve: list[CurvePoint] = Field(description="The anytime curve: a point for each epoch, in the order recorded.")


class _Cells(Schema):
    def row(self) -> dict[str, Any]:
        """A line of CSV: each statistic in two columns, and no lists."""
        cells: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Statistic):
                cells |= {name: value.mean, f"{name}_spread": value.spread}
            elif not isinstance(value, list):
                cells[name] = value
        return cells


Line = TypeVar("Line", bound=_Cells)


class _OfJob(Schema, Generic[Line]):
    job_id: str
    items: list[Line]

    @classmethod
    def of(cls, job_id: str, items: Sequence[object]) -> Self:
        return cls.model_validate({"job_id": job_id, "items": items})


class ComparedRun(_Cells):
    """What a method came to: means over the seeds that have recorded an epoch; each as in `by_seed`."""

    model_config = example(_RUN)

    method: str
    trials: int = Field(description="Of all seeds.")
    seeds: int = Field(description="That have recorded an epoch.")
    val_accuracy: Statistic
    test_accuracy: Statistic
    samples: Statistic
    lost_samples: Statistic
    evaluation_samples: Statistic
    seconds: Statistic
    span_seconds: Statistic
    samples_to_stpt: Statistic
    relative_to_stpt: Statistic
    by_seed: list[SeedComparison]


COMPARISON_COLUMNS = tuple(ComparedRun.model_validate(_RUN).row())


class Comparison(_OfJob[ComparedRun]):
    """The methods of a job side by side. Models are selected by validation accuracy, never by test accuracy."""

    model_config = example({"job_id": _JOB_ID, "items": [_RUN]})


class StudyRow(_Cells):
    """A variant of a study at a batch size: statistics over the seeds whose trial has ended."""

    model_config = example(_STUDY_ROW)

    variant: str
    global_batch_size: int
    seeds: int = Field(description="Whose trial has ended, completed or diverged.")
    diverged: int = Field(description="Of them.")
    final_test_accuracy: Statistic = Field(description="Of the last epoch; 0 for a trial that diverged.")
    best_test_accuracy: Statistic = Field(
        description="The highest of all epochs, as papers' tables often have it: selected by the test images."
    )


STUDY_COLUMNS = tuple(StudyRow.model_validate(_STUDY_ROW).row())


class Study(_OfJob[StudyRow]):
    """Every variant of a study at every batch size, in its order."""

    model_config = example({"job_id": _JOB_ID, "items": [_STUDY_ROW]})


class ExperimentStudy(Schema):
    """The studies of an experiment's jobs as one: every variant at every batch size that it was trained at."""

    model_config = example({"experiment": "layer-wise-optimizers-01234567", "items": [_STUDY_ROW]})

    experiment: str
    items: list[StudyRow]


class RampStep(Schema):
    """A training of a batch ramp."""

    model_config = example(_RAMP_STEP)

    global_batch_size: int
    learning_rate: float
    momentum: float
    effective_learning_rate: float = Field(description="learning_rate / (1 - momentum)")


class BatchRamp(Schema):
    """The largest batch before validation accuracy fell, in each phase of one seed's ramp, so far."""

    model_config = example(_RAMP)

    seed: int
    by_learning_rate: RampStep | None = Field(description="The learning rate follows. null: no such batch was good.")
    by_momentum: RampStep | None = Field(description="The momentum follows. null: no such batch was good.")


class BatchRamps(Schema):
    model_config = example({"job_id": _JOB_ID, "items": [_RAMP]})

    job_id: str
    items: list[BatchRamp]

    @classmethod
    def of(cls, job_id: str, ramps: Mapping[int, ramp.Ramp]) -> Self:
        items = [
            {"seed": seed, "by_learning_rate": one.by_learning_rate, "by_momentum": one.by_momentum}
            for seed, one in ramps.items()
        ]
        return cls.model_validate({"job_id": job_id, "items": items})


class HistoryStep(Schema):
    """The learning rate of one epoch of one trial of one job. Optimizer and batch are the trial's own, where a search
    chose them."""

    model_config = example(_STEP)

    job_id: str
    model: str
    dataset: str
    optimizer: str
    global_batch_size: int
    method: str
    trial: int
    seed: int
    epoch: int
    phase: str = Field(description="warmup, stpt or scheduled")
    learning_rate: float = Field(description="Before the envelope.")
    first_learning_rate: float = Field(description="Of the epoch's first iteration, under the envelope.")
    last_learning_rate: float = Field(description="Of its last iteration.")
    val_accuracy: float
    test_accuracy: float
    samples: int = Field(description="Training samples of the epoch, all branches included.")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        return cls(**{name: row[name] for name in cls.model_fields})


class HistoryPage(Schema):
    """Epochs of many jobs: newest jobs first, inside a job by method, trial and epoch."""

    model_config = example({"items": [_STEP], "next_cursor": None})

    items: list[HistoryStep]
    next_cursor: str | None = Field(description="Goes into `cursor` for the next page; null: this is the last one.")


class Evidence(Schema):
    """What a past run of stpt chose, and how good it became."""

    model_config = example(_EVIDENCE)

    job_id: str
    seed: int
    optimizer: str
    global_batch_size: int
    envelope: str
    learning_rate: float = Field(description="After the search, before the envelope.")
    scaled_learning_rate: float = Field(description="For the batch of the recommendation.")
    val_accuracy: float = Field(description="Its best.")
    test_accuracy: float = Field(description="Of the same epoch.")


class Recommendation(Schema):
    """The learning rate to begin with, before the envelope, by what past runs of stpt have chosen."""

    model_config = example(_RECOMMENDATION)

    model: str
    dataset: str
    optimizer: str
    global_batch_size: int
    learning_rate: float = Field(description="The median of the evidence.")
    low: float = Field(description="The smallest of the evidence.")
    high: float = Field(description="The largest of the evidence.")
    schedule: Schedule = Field(description="Of the run with the best validation accuracy, for the method `replay`.")
    rule: str = Field(description="How learning rates of another batch were scaled: none, linear or sqrt.")
    note: str = Field(description="The same in a sentence, with its source.")
    evidence: list[Evidence]

    @classmethod
    def of(cls, model: str, dataset: str, found: recommendation.Recommendation) -> Self:
        values = {name: getattr(found, name) for name in cls.model_fields if name not in ("model", "dataset")}
        values["evidence"] = [Evidence.model_validate(one) for one in found.evidence]
        return cls(model=model, dataset=dataset, **values)
