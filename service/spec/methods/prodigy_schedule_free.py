"""Prodigy and Schedule-Free in one optimizer (the package prodigy-plus-schedule-free)."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.methods.base import WholeBudgetMethod
from service.spec.types import LearningRate


class ProdigyScheduleFreeMethod(WholeBudgetMethod):
    """Prodigy, which estimates the step size of Adam, with Schedule-Free's average in place of a schedule (the package
    prodigy-plus-schedule-free with its defaults; Mishchenko & Defazio 2023, arXiv 2306.06101, and Defazio et al. 2024,
    arXiv 2405.15682). It takes the whole budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["prodigy-schedule-free"] = Field("prodigy-schedule-free", description="Name of this method.")
    learning_rate: LearningRate = Field(1.0, description="A factor on the step size that Prodigy estimates.")
