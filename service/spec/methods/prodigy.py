"""Prodigy, an optimizer that estimates its own step size (Mishchenko & Defazio 2023, arXiv 2306.06101)."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.methods.base import WholeBudgetMethod
from service.spec.types import LearningRate


class ProdigyMethod(WholeBudgetMethod):
    """Prodigy (Mishchenko & Defazio 2023, arXiv 2306.06101; the package prodigyopt), which estimates the step size of
    Adam itself, under a cosine to 0, as its authors advise. It takes the whole budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["prodigy"] = Field("prodigy", description="Name of this method.")
    learning_rate: LearningRate = Field(1.0, description="A factor on the step size that Prodigy estimates.")
