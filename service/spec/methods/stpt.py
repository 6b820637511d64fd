"""Short-term pre-training (STPT, Yamada et al.), as the rest of the spec says."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.methods.base import Facts, MethodSpec, Schedule, Work
from service.spec.scaling import Scaling

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class StptMethod(MethodSpec):
    """Short-term pre-training, as the rest of the spec says."""

    sets_budget: ClassVar[bool] = True

    name: Literal["stpt"] = Field("stpt", description="This method.")
    scaling: Scaling | None = Field(
        None,
        description="To the global batch, of `initial_learning_rate`, which the first Pre-train goes by; null: none.",
    )

    def work(self, spec: "JobSpec", facts: Facts) -> Work:
        """One training, and what its Pre-trains take beside it."""
        return Work(1, spec.epochs * facts.epoch_samples + facts.searched)

    def first_learning_rate(self, spec: "JobSpec") -> float:
        """The job's initial learning rate, scaled to its batch where that is asked for."""
        start = spec.initial_learning_rate
        return start if self.scaling is None else self.scaling.learning_rate(start, spec.global_batch_size)

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """Under the job's envelope, but for its warm-up."""
        return Schedule(learning_rates=list(learning_rates), envelope=spec.envelope, warmup_epochs=spec.warmup_epochs)

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """What is wrong with its scaling: absolute candidates cannot follow it."""
        scaling = self.scaling
        if scaling is None:
            return []
        errors = scaling.errors(spec, f"{field}.scaling", spec.initial_learning_rate)
        if not scaling.momentum and (why := spec.lr_set.why_not_scaled) is not None:
            message = f"the learning rates of lr_set {why}; leave scaling out, or give lr_set factors"
            errors.append(FieldError(f"{field}.scaling.rule", scaling.rule, message))
        return errors
