"""Sequential model-based algorithm configuration."""

from typing import Literal

from pydantic import Field

from service.spec.methods.search import TunedMethod


class SmacMethod(TunedMethod):
    """Whole trainings that SMAC3's facade for hyperparameters proposes (Lindauer et al. 2022, JMLR 23(54))."""

    name: Literal["smac"] = Field("smac", description="This method.")
