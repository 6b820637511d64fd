"""The conventional method (STPT, Yamada et al., Fig. 3): a whole training for each learning rate."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.spec.methods.base import LrSchedule, MethodSpec, Schedule
from service.spec.types import MAX_LEARNING_RATES, LearningRate

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class SweepMethod(MethodSpec):
    """The conventional method that STPT is compared with (Yamada et al., Fig. 3): a whole training for each learning
    rate."""

    name: Literal["sweep"] = Field("sweep", description="Name of this method.")
    learning_rates: list[LearningRate] | None = Field(
        None,
        min_length=1,
        max_length=MAX_LEARNING_RATES,
        description="Learning rates to train with; null: the first candidates of lr_set.",
    )
    lr_schedule: LrSchedule = Field("constant", description="How each learning rate falls over its training.")

    def rates(self, candidates: Sequence[float]) -> tuple[float, ...]:
        """The learning rate of each trial: those that are given, or else `candidates`, which the job's first Pre-train
        tries; equal ones once."""
        return tuple(dict.fromkeys(candidates if self.learning_rates is None else self.learning_rates))

    def trainings(self, candidates: Sequence[float]) -> int:
        """The number of trainings with one seed: one for each learning rate."""
        return len(self.rates(candidates))

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that trains again as a trial did: its learning rates under the sweep's own lr_schedule."""
        return Schedule(learning_rates=list(learning_rates), lr_schedule=self.lr_schedule)
