"""One training under a linear decay of the learning rate."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.spec.methods.base import Schedule, WholeBudgetMethod
from service.spec.types import LearningRate

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class LinearMethod(WholeBudgetMethod):
    """One training whose learning rate falls linearly to 0. It takes the whole budget."""

    name: Literal["linear"] = Field("linear", description="Name of this method.")
    learning_rate: LearningRate | None = Field(
        None, description="Learning rate at the start; null: `initial_learning_rate`."
    )

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that trains again as the training did: its learning rates under a linear decay to 0."""
        return Schedule(learning_rates=list(learning_rates), lr_schedule="linear")
