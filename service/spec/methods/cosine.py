"""One training under a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.spec.methods.base import Schedule, WholeBudgetMethod
from service.spec.types import LearningRate

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class CosineMethod(WholeBudgetMethod):
    """One training whose learning rate falls along a cosine to 0. It takes the whole budget."""

    name: Literal["cosine"] = Field("cosine", description="This method.")
    learning_rate: LearningRate | None = Field(None, description="At the start; null: `initial_learning_rate`.")

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """Under the cosine."""
        return Schedule(learning_rates=list(learning_rates), lr_schedule="cosine")
