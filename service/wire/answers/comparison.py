"""Answers that put the methods of a job side by side."""

from pydantic import Field

from service.wire.answers.base import JOB_ID, Answer, example
from service.wire.answers.statistic import Statistic, Statistics

# An example: stpt on the digits, with one seed.
_CURVE = [
    {"samples": 6400, "val_accuracy": 0.9097, "test_accuracy": 0.8917},
    {"samples": 12800, "val_accuracy": 0.9583, "test_accuracy": 0.9472},
]
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
    "curve": _CURVE,
}
_RUN = {"label": "stpt", "method": "stpt", "trials": 1, "seeds": 1, "by_seed": [_SEED]} | {
    name: {"mean": _SEED[name], "spread": None}
    for name in (
        *("val_accuracy", "test_accuracy", "samples", "lost_samples", "evaluation_samples", "seconds", "span_seconds"),
        *("samples_to_stpt", "relative_to_stpt"),
    )
}


class CurvePoint(Answer):
    """A point of an anytime curve: the best epoch so far, once `samples` training samples were processed."""

    model_config = example(_CURVE[0])

    samples: int = Field(description="Training samples so far, over all trials.")
    val_accuracy: float = Field(description="Best validation accuracy so far.")
    test_accuracy: float = Field(description="Test accuracy of the epoch with it.")


class SeedComparison(Answer):
    """What a run came to with one seed: its best epoch, and what it took. Durations are in seconds."""

    model_config = example(_SEED)

    seed: int = Field(description="Seed of the random numbers.")
    trials: int = Field(description="Trials with this seed.")
    val_accuracy: float = Field(description="The best validation accuracy of all its trials.")
    test_accuracy: float = Field(description="Test accuracy of the epoch with that validation accuracy.")
    samples: int = Field(description="Training samples of all trials, search included; audits are no part of it.")
    lost_samples: int = Field(
        description="Training samples beside them: of epochs that were trained twice after a lost attempt."
    )
    evaluation_samples: int = Field(description="Samples that evaluations took.")
    seconds: float = Field(description="Duration of all epochs together, those that ran side by side included.")
    span_seconds: float | None = Field(description="Time from the first recorded epoch to the last; null: one alone.")
    samples_to_stpt: int | None = Field(
        description="Training samples until it was as good as stpt's best with this seed; null: never, or no stpt."
    )
    relative_to_stpt: float | None = Field(description="samples_to_stpt over what stpt itself needed.")
    curve: list[CurvePoint] = Field(description="The anytime curve: a point for each epoch, in the order recorded.")


class ComparedRun(Statistics):
    """What a run came to: means over the seeds that have recorded an epoch, of what `by_seed` has for each."""

    model_config = example(_RUN)

    label: str = Field(description="Label of the run.")
    method: str = Field(description="Name of the method.")
    trials: int = Field(description="Trials of all seeds.")
    seeds: int = Field(description="Seeds that have recorded an epoch.")
    val_accuracy: Statistic = Field(description="The best validation accuracy of all trials.")
    test_accuracy: Statistic = Field(description="Test accuracy of the epoch with that validation accuracy.")
    samples: Statistic = Field(description="Training samples of all trials, search included.")
    lost_samples: Statistic = Field(
        description="Training samples of epochs that were trained twice after a lost attempt."
    )
    evaluation_samples: Statistic = Field(description="Samples that evaluations took.")
    seconds: Statistic = Field(description="Duration of all epochs together, in seconds.")
    span_seconds: Statistic = Field(description="Time from the first recorded epoch to the last, in seconds.")
    samples_to_stpt: Statistic = Field(description="Training samples until it was as good as stpt's best.")
    relative_to_stpt: Statistic = Field(description="samples_to_stpt over what stpt itself needed.")
    by_seed: list[SeedComparison] = Field(description="What the run came to with each seed.")


COMPARISON_COLUMNS = tuple(next(ComparedRun.model_validate(_RUN).table_rows()))


class Comparison(Answer):
    """The methods of a job side by side. Models are selected by validation accuracy, never by test accuracy."""

    model_config = example({"job_id": JOB_ID, "items": [_RUN]})

    job_id: str = Field(description="Id of the job.")
    items: list[ComparedRun] = Field(description="The methods, in the order of the job's runs.")
