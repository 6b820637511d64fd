"""Schedule-Free, an optimizer that needs no schedule (Defazio et al. 2024, arXiv 2405.15682)."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.methods.base import WholeBudgetMethod
from service.spec.types import LearningRate


class ScheduleFreeMethod(WholeBudgetMethod):
    """One training by Schedule-Free SGD, or AdamW where the job's optimizer is Adam or AdamW (Defazio et al. 2024,
    arXiv 2405.15682; the package schedulefree). It takes the whole budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["schedule-free"] = Field("schedule-free", description="Name of this method.")
    learning_rate: LearningRate | None = Field(
        None, description="Learning rate of all iterations; null: the package's default, 1.0 (AdamW: 0.0025)."
    )
