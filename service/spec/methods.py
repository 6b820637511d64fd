"""How the learning rate comes about: by search, by a schedule, by another job's history. Each method is a run of a job.

`stpt` is Forerun's own; what stands beside it is either trained without search, or searches with Ray Tune. Searches
and schedules that have a `budget` stop at it; it counts training samples, those of the search included.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from service.spec.optimizer import Optimizer
from service.spec.types import MAX_BATCH, MAX_LEARNING_RATES, Frozen, LearningRate, named

Envelope = Literal["constant", "linear", "cosine"]
Rule = Literal["none", "sqrt", "linear"]  # how a learning rate follows the batch
WarmupKind = Literal["constant", "gradual", "linear"]


# --- trainings ---------------------------------------------------------------------------------------


class Scaling(Frozen):
    """How the learning rate follows the batch (S2, section II), or the momentum in its place (S2, section IV)."""

    rule: Rule = Field(description="Times 1, the square root of B/b0, or B/b0, for batch B and base batch b0.")
    base_batch_size: int = Field(ge=1, le=MAX_BATCH, description="b0: the batch that the learning rate was chosen for.")
    momentum: bool = Field(
        False,
        description="true: the learning rate stays, and 1 / (1 - momentum) follows the rule; for sgd, lars and tvlars.",
    )


class StptMethod(Frozen):
    """Short-term pre-training, as the rest of the spec says."""

    name: Literal["stpt"] = Field("stpt", description="This method.")
    scaling: Scaling | None = Field(
        None,
        description="To the global batch, of `initial_learning_rate`, which the first Pre-train goes by; null: none.",
    )


class SweepMethod(Frozen):
    """S1's conventional method: a whole training for each learning rate."""

    name: Literal["sweep"] = Field("sweep", description="This method.")
    learning_rates: list[LearningRate] | None = Field(
        None, min_length=1, max_length=MAX_LEARNING_RATES, description="null: the first candidates of lr_set."
    )
    schedule: Envelope = Field("constant", description="How each falls over its training.")


class ReferenceMethod(Frozen):
    """S1's reference: a constant learning rate, divided when validation accuracy saturates; no warm-up."""

    name: Literal["reference"] = Field("reference", description="This method.")
    learning_rate: LearningRate = Field(0.1, description="Until it is divided for the first time.")
    factor: float = Field(10.0, gt=1, le=1e6, description="What it is divided by.")
    patience: int = Field(3, ge=1, le=100_000, description="Epochs without a new best accuracy: saturated.")


class Schedule(Frozen):
    """A history of learning rates to train by: one for each epoch, under an envelope over the whole training."""

    learning_rates: list[LearningRate] = Field(min_length=1, max_length=100_000, description="Of epochs 1, 2, 3, …")
    envelope: Envelope = Field("constant", description="What the learning rates are multiplied by.")
    warmup_epochs: int = Field(0, ge=0, description="The first epochs, which the envelope leaves as they are.")


class ReplayMethod(Frozen):
    """Train by the learning rates that an earlier job chose, without search."""

    name: Literal["replay"] = Field("replay", description="This method.")
    job: str | None = Field(None, max_length=40, description="Take the schedule of this job.")
    schedule: Schedule | None = Field(None, description="Or this one.")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.job is None and self.schedule is None:
            raise ValueError("needs the schedule to train by; name a job, or give a schedule")
        return self


class CosineMethod(Frozen):
    """One training whose learning rate falls along a cosine to 0. It takes the whole budget."""

    name: Literal["cosine"] = Field("cosine", description="This method.")
    learning_rate: LearningRate | None = Field(None, description="At the start; null: `initial_learning_rate`.")


class OneCycleMethod(Frozen):
    """One training by the 1cycle policy (Smith & Topin 2018, arXiv 1708.07120), as torch's OneCycleLR has it: up for
    30 % of the iterations, then down to almost nothing, both along a cosine. Momentum stays. It takes the whole
    budget."""

    name: Literal["one-cycle"] = Field("one-cycle", description="This method.")
    learning_rate: LearningRate | None = Field(None, description="At its highest; null: `initial_learning_rate`.")


class ScheduleFreeMethod(Frozen):
    """Schedule-Free SGD, or AdamW where the job's optimizer is Adam or AdamW (Defazio et al. 2024, arXiv 2405.15682;
    the package schedulefree). It takes the whole budget."""

    name: Literal["schedule-free"] = Field("schedule-free", description="This method.")
    learning_rate: LearningRate | None = Field(
        None, description="Of all iterations; null: the package's default, 1.0 (AdamW: 0.0025)."
    )


class ProdigyMethod(Frozen):
    """Prodigy (Mishchenko & Defazio 2023, arXiv 2306.06101; the package prodigyopt), which estimates the step size of
    Adam itself, under a cosine to 0, as its authors advise. It takes the whole budget."""

    name: Literal["prodigy"] = Field("prodigy", description="This method.")
    learning_rate: LearningRate = Field(1.0, description="A factor on what it estimates.")


class ScheduleWarmup(Frozen):
    """The first epochs, on the way from the learning rate before scaling to the scaled one."""

    kind: WarmupKind = Field(
        description="constant: at the one before scaling; gradual: from that to the scaled one, epoch by epoch (S2); "
        "linear: from 0 to the scaled one, iteration by iteration (S3)."
    )
    epochs: int = Field(ge=1, le=100_000, description="So many; no more than the job has.")


class PolynomialDecay(Frozen):
    """(1 - progress)^power."""

    kind: Literal["polynomial"] = Field("polynomial", description="This decay.")
    power: float = Field(2.0, gt=0, le=100, description="1: along a line.")


class CosineDecay(Frozen):
    """Along a cosine from 1 to `final`."""

    kind: Literal["cosine"] = Field("cosine", description="This decay.")
    final: float = Field(0.0, ge=0, le=1, description="What is left at the end, as a share.")


class StepDecay(Frozen):
    """`factor` once for each milestone reached."""

    kind: Literal["step"] = Field("step", description="This decay.")
    factor: float = Field(0.1, gt=0, le=1, description="What the learning rate is multiplied by.")
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5, 0.75], min_length=1, max_length=64, description="Shares of the epochs behind the warm-up."
    )


_Decays = Annotated[PolynomialDecay | CosineDecay | StepDecay, Field(discriminator="kind")]
DecayKind = Literal["polynomial", "cosine", "step"]
Decay = Annotated[_Decays, named(DecayKind, _Decays, "kind")]

# S3, appendix A, as Barlow Twins has it: 20 epochs up to learning_rate * B/256, then down to 0.1 % of that
LARS_WARM: dict[str, Any] = {
    "scaling": {"rule": "linear", "base_batch_size": 256},
    "warmup": {"kind": "linear", "epochs": 20},
    "decay": {"kind": "cosine", "final": 0.001},
}


def _within(preset: Any, given: Any) -> Any:
    """What is given in place of a preset's value, or beside its keys where it is of the same kind."""
    if not (isinstance(preset, dict) and isinstance(given, dict)):
        return given
    return preset | given if given.get("kind", preset.get("kind")) == preset.get("kind") else given


class ScheduleMethod(Frozen):
    """One training by a schedule written out: the learning rate scaled to the batch, a warm-up, a decay. It has the
    job's epochs."""

    name: Literal["schedule"] = Field("schedule", description="This method.")
    preset: Literal["lars-warm"] | None = Field(
        None, description="S3's schedule for LARS and LAMB, where the fields below say nothing."
    )
    learning_rate: LearningRate | None = Field(None, description="Before scaling; null: `initial_learning_rate`.")
    scaling: Scaling | None = Field(None, description="To the global batch; null: none.")
    warmup: ScheduleWarmup | None = Field(None, description="null: none.")
    decay: Decay | None = Field(None, description="Behind the warm-up; null: the learning rate stays.")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        if not (isinstance(value, dict) and value.get("preset") == "lars-warm"):
            return value
        return LARS_WARM | {key: _within(LARS_WARM.get(key), given) for key, given in value.items()}


# --- searches by Ray Tune ----------------------------------------------------------------------------

Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
IntegerBounds = Annotated[list[Annotated[int, Field(ge=-(2**31), lt=2**31)]], Field(min_length=2, max_length=2)]
Choices = Annotated[list[Any], Field(min_length=1, max_length=64)]


class Distribution(Frozen):
    """Where a hyperparameter is drawn from, as Ray Tune calls it; exactly one of these."""

    uniform: Bounds | None = Field(None, description="[low, high]")
    loguniform: Bounds | None = Field(None, description="[low, high], both above 0; uniform in the logarithm.")
    randint: IntegerBounds | None = Field(None, description="[low, high), integers.")
    lograndint: IntegerBounds | None = Field(None, description="The same, uniform in the logarithm.")
    choice: Choices | None = Field(None, description="One of these values.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in type(self).model_fields if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(type(self).model_fields)}; it has {len(given)}")
        if given[0] == "choice":
            return self
        low, high = getattr(self, given[0])
        if not low < high:
            raise ValueError(f"must be [low, high] with low below high, not [{low:g}, {high:g}]")
        if given[0].startswith("log") and low <= 0:
            raise ValueError(f"is uniform in the logarithm, so low must be above 0, not {low:g}")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)

    @property
    def extremes(self) -> list[Any]:
        """The outermost values, or all choices."""
        if self.choice is not None:
            return self.choice
        low, high = getattr(self, self.kind)
        return [low, high - 1] if isinstance(high, int) and self.kind.endswith("randint") else [low, high]


SearchKey = Annotated[str, StringConstraints(max_length=50)]
GpusPerTrial = Annotated[float, Field(gt=0, le=1)]
_GPUS = "On GPUs: less than 1 puts several trials on one."


class Search(Frozen):
    """What all searches share. Trials train like those of `sweep`, one process each, as many at a time as fit."""

    search_space: dict[SearchKey, Distribution] | None = Field(
        None,
        max_length=16,
        description="By key: learning_rate, optimizer, optimizer.momentum, optimizer.weight_decay, global_batch_size, "
        "envelope. null: the learning rate, log-uniform over what lr_set tries first.",
    )
    schedule: Envelope | None = Field(None, description="How learning rates fall over a training; null: `envelope`.")
    max_trials: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="null: as many as the budget has room for; without one as many as lr_set has first candidates.",
    )
    gpus_per_trial: GpusPerTrial = Field(1.0, description=_GPUS)


class SamplerMethod(Search):
    """Whole trainings: `random`; `grid`, evenly spaced in the logarithm; `tpe` (Optuna's TPESampler); `smac` (SMAC3's
    facade for hyperparameters)."""

    name: Literal["random", "grid", "tpe", "smac"] = Field(description="This method.")


class HalvingMethod(Search):
    """Trials that do badly are stopped early: `hyperband` (Li et al. 2018, arXiv 1603.06560), `asha` (Li et al. 2020,
    arXiv 1810.05934), and `bohb`: Hyperband whose trials TPE proposes (Falkner et al. 2018, arXiv 1807.01774)."""

    name: Literal["hyperband", "asha", "bohb"] = Field(description="This method.")
    reduction_factor: int = Field(3, ge=2, le=16, description="eta: one of so many goes on to the next rung.")


class PbtMethod(Search):
    """Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): bad members go on from good ones' weights,
    with other hyperparameters."""

    name: Literal["pbt"] = Field("pbt", description="This method.")
    population: int = Field(4, ge=2, le=1000, description="Trainings side by side; they share the budget.")
    perturbation_interval: int | None = Field(
        None, ge=1, le=100_000, description="Epochs between exploits; null: an eighth of the training."
    )


# --- large batches: trials of Ray Tune too, without a budget ---------------------------------------------

_VariantMethods = Annotated[
    StptMethod | ReferenceMethod | CosineMethod | OneCycleMethod | ScheduleFreeMethod | ProdigyMethod | ScheduleMethod,
    Field(discriminator="name"),
]
_VariantName = Literal["stpt", "reference", "cosine", "one-cycle", "schedule-free", "prodigy", "schedule"]


class Variant(Frozen):
    """One way to train, at every batch of a study."""

    name: str = Field(min_length=1, max_length=50, pattern=r"^[^\x00]*$", description="Its line in table and figure.")
    method: Annotated[_VariantMethods, named(_VariantName, _VariantMethods)] = Field(
        description="A training; it has the job's epochs, and the rest of the spec holds for it."
    )
    optimizer: Optimizer | None = Field(None, description="null: the job's.")
    initial_learning_rate: LearningRate | None = Field(
        None, description="null: the job's. Each optimizer has a scale of its own."
    )


class StudyMethod(Frozen):
    """Every variant at every batch size: S2's studies. Each trial is a training in one process."""

    name: Literal["study"] = Field("study", description="This method.")
    batch_sizes: list[Annotated[int, Field(ge=1, le=MAX_BATCH)]] = Field(
        min_length=1, max_length=16, description="Global batch sizes."
    )
    variants: list[Variant] = Field(min_length=1, max_length=16, description="What is tried at each of them.")
    gpus_per_trial: GpusPerTrial = Field(1.0, description=_GPUS)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, values in (("batch size", self.batch_sizes), ("variant", [one.name for one in self.variants])):
            if len(set(values)) < len(values):
                raise ValueError(f"each {what} once, not {', '.join(map(str, values))}; leave the repetition out")
        return self


class RampMethod(Frozen):
    """How large the batch may become (S2, section IV): from `global_batch_size` it is doubled, the learning rate
    following by the square root, until validation accuracy falls; then from the last good one with the momentum
    following. One training after another, each in one process."""

    name: Literal["batch-ramp"] = Field("batch-ramp", description="This method.")
    tolerance: float = Field(
        0.005, ge=0, le=1, description="Validation accuracy falls when it ends so much below the best before."
    )
    gpus_per_trial: GpusPerTrial = Field(1.0, description=_GPUS)


TrainedMethod = (
    StptMethod
    | SweepMethod
    | ReferenceMethod
    | ReplayMethod
    | CosineMethod
    | OneCycleMethod
    | ScheduleFreeMethod
    | ProdigyMethod
    | ScheduleMethod
)
SearchMethod = SamplerMethod | HalvingMethod | PbtMethod | StudyMethod | RampMethod  # by Ray Tune
UNBUDGETED = (StudyMethod, RampMethod)
STRETCHED = (CosineMethod, OneCycleMethod, ScheduleFreeMethod, ProdigyMethod)  # as long as the budget allows

_Methods = Annotated[TrainedMethod | SearchMethod, Field(discriminator="name")]
MethodName = Literal[
    "stpt",
    "sweep",
    "reference",
    "cosine",
    "one-cycle",
    "schedule-free",
    "prodigy",
    "schedule",
    "random",
    "grid",
    "tpe",
    "smac",
    "hyperband",
    "asha",
    "bohb",
    "pbt",
    "study",
    "batch-ramp",
]
Method = Annotated[_Methods, named(MethodName, _Methods)]


class Budget(Frozen):
    """Training samples of each baseline and seed, its search included; exactly one of these."""

    samples: int | None = Field(None, ge=1, lt=2**53, description="So many.")
    epochs: float | None = Field(None, gt=0, le=1e9, description="Those of so many epochs.")
    relative_to: Literal["stpt"] | None = Field(None, description="As many as the run of this method took, times:")
    times: float = Field(1.0, gt=0, le=1e6, description="Only with relative_to.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in ("samples", "epochs", "relative_to") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of samples, epochs, relative_to; it has {len(given)}")
        if self.relative_to is None and not math.isclose(self.times, 1):
            raise ValueError("times belongs to relative_to; leave it out")
        return self
