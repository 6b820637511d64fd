"""The method `fixed`, a training without search: its learning rate scaled to the batch, a warm-up, an lr_schedule."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from service.errors import FieldError
from service.spec.methods.base import MethodSpec
from service.spec.scaling import Scaling
from service.spec.types import Frozen, LearningRate, named

if TYPE_CHECKING:
    from service.spec.job import JobSpec


WarmupKind = Literal["constant", "gradual", "linear"]


class FixedWarmup(Frozen):
    """The warm-up of the method `fixed`: the first epochs, on the way from the learning rate before scaling to the
    scaled one."""

    kind: WarmupKind = Field(
        description="constant: at the learning rate before scaling; gradual: from that to the scaled one, epoch by "
        "epoch (both Signer & Barbier, section II); linear: from 0 to the scaled one, iteration by iteration (Do et "
        "al., appendix A)."
    )
    epochs: int = Field(ge=1, le=100_000, description="How many epochs the warm-up takes; no more than the job has.")


class PolynomialLrSchedule(Frozen):
    """A decay that multiplies the learning rate by (1 - progress)^power, with progress from 0 behind the warm-up to
    1."""

    kind: Literal["polynomial"] = Field("polynomial", description="Name of this lr_schedule.")
    power: float = Field(2.0, gt=0, le=100, description="The exponent; 1 is a decay along a line.")


class CosineLrSchedule(Frozen):
    """A decay that multiplies the learning rate by a factor that falls along a cosine from 1 to `final`."""

    kind: Literal["cosine"] = Field("cosine", description="Name of this lr_schedule.")
    final: float = Field(0.0, ge=0, le=1, description="Share of the learning rate that is left at the end.")


class StepLrSchedule(Frozen):
    """A decay in steps, which multiplies the learning rate by `factor` at each of the `milestones`."""

    kind: Literal["step"] = Field("step", description="Name of this lr_schedule.")
    factor: float = Field(0.1, gt=0, le=1, description="What the learning rate is multiplied by at each milestone.")
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5, 0.75], min_length=1, max_length=64, description="Shares of the epochs behind the warm-up."
    )


_LrSchedules = Annotated[PolynomialLrSchedule | CosineLrSchedule | StepLrSchedule, Field(discriminator="kind")]
LrScheduleKind = Literal["polynomial", "cosine", "step"]
DecayingLrSchedule = Annotated[_LrSchedules, named(LrScheduleKind, _LrSchedules, "kind")]

# TVLARS (appendix A), as Barlow Twins has it: 20 epochs up to learning_rate * B/256, then down to 0.1 % of that
LARS_WARM: dict[str, Any] = {
    "scaling": {"rule": "linear", "base_batch_size": 256},
    "warmup": {"kind": "linear", "epochs": 20},
    "lr_schedule": {"kind": "cosine", "final": 0.001},
}


def _within(default: Any, given: Any) -> Any:
    """What is given in place of a default, or beside its keys where it is of the same kind."""
    if not (isinstance(default, dict) and isinstance(given, dict)):
        return given
    return default | given if given.get("kind", default.get("kind")) == default.get("kind") else given


class FixedMethod(MethodSpec):
    """One training without search: the learning rate scaled to the batch, a warm-up, an lr_schedule of its own. It
    trains the job's epochs, whatever the budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["fixed"] = Field("fixed", description="Name of this method.")
    defaults: Literal["lars-warm"] | None = Field(
        None,
        description="lars-warm: what TVLARS's paper trains LARS and LAMB by, where the fields below say nothing.",
    )
    learning_rate: LearningRate | None = Field(
        None, description="Learning rate before scaling; null: `initial_learning_rate`."
    )
    scaling: Scaling | None = Field(
        None, description="How the learning rate follows the global batch; null: it does not."
    )
    warmup: FixedWarmup | None = Field(
        None, description="The first epochs on the way to the scaled learning rate; null: no warm-up."
    )
    lr_schedule: DecayingLrSchedule | None = Field(
        None, description="How the learning rate falls behind the warm-up; null: it stays."
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        if not (isinstance(value, dict) and value.get("defaults") == "lars-warm"):
            return value
        return LARS_WARM | {key: _within(LARS_WARM.get(key), given) for key, given in value.items()}

    def own_learning_rate(self, spec: "JobSpec") -> float:
        """The learning rate before scaling: the method's own, or else the job's initial one."""
        return self.learning_rate or spec.initial_learning_rate

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """What is wrong with the method's warm-up and its scaling in that job; `field` is its place in the spec."""
        errors, warmup = [], self.warmup
        if warmup is not None and warmup.epochs > spec.epochs:
            message = f"longer than the whole training ({spec.epochs} epochs); lower it or raise epochs"
            errors.append(FieldError(f"{field}.warmup.epochs", warmup.epochs, message))
        if warmup is not None and warmup.kind != "linear" and not self._leads_up():
            message = (
                "leads from the learning rate before scaling to the scaled one, and none is scaled; give scaling, of "
                "the learning rate, or kind linear"
            )
            errors.append(FieldError(f"{field}.warmup.kind", warmup.kind, message))
        if self.scaling is not None:
            errors += self.scaling.errors(spec, f"{field}.scaling", self.own_learning_rate(spec))
        return errors

    def _leads_up(self) -> bool:
        """Whether there is a learning rate before scaling and one behind it; at the base batch they are the same."""
        return self.scaling is not None and not self.scaling.momentum and self.scaling.rule != "none"
