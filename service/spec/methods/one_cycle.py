"""The 1cycle policy (Smith & Topin 2018, arXiv 1708.07120)."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.methods.base import WholeBudgetMethod
from service.spec.types import LearningRate


class OneCycleMethod(WholeBudgetMethod):
    """One training by the 1cycle policy (Smith & Topin 2018, arXiv 1708.07120), as torch's OneCycleLR has it: up for
    30 % of the iterations, then down to almost nothing, both along a cosine. Momentum stays. It takes the whole
    budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["one-cycle"] = Field("one-cycle", description="Name of this method.")
    learning_rate: LearningRate | None = Field(
        None, description="The highest learning rate; null: `initial_learning_rate`."
    )
