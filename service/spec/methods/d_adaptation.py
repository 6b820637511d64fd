"""D-Adaptation, which estimates the step size of an optimizer (Defazio & Mishchenko 2023, arXiv 2301.07733)."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.methods.base import WholeBudgetMethod
from service.spec.types import LearningRate


class DAdaptationMethod(WholeBudgetMethod):
    """D-Adaptation of SGD, or of Adam where the job's optimizer is Adam or AdamW (Defazio & Mishchenko 2023, arXiv
    2301.07733; the package dadaptation), which estimates the step size itself. The schedule is the job's `lr_schedule`:
    its authors advise the one that would be used without it. It takes the whole budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["d-adaptation"] = Field("d-adaptation", description="Name of this method.")
    learning_rate: LearningRate = Field(1.0, description="A factor on the step size that D-Adaptation estimates.")
