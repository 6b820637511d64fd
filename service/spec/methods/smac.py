"""Sequential model-based algorithm configuration (SMAC, Lindauer et al. 2022, JMLR 23(54))."""

from typing import Literal

from pydantic import Field

from service.spec.methods.search import TunedMethod


class SmacMethod(TunedMethod):
    """A search of whole trainings that SMAC3's facade for hyperparameters proposes (Lindauer et al. 2022, JMLR
    23(54))."""

    name: Literal["smac"] = Field("smac", description="Name of this method.")
