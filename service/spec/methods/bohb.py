"""Multivariate proposals under Hyperband."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

if TYPE_CHECKING:
    pass


from service.spec.methods.halving import HalvingMethod


class BohbMethod(HalvingMethod):
    """Hyperband whose trials TPE proposes (after Falkner et al. 2018, arXiv 1807.01774)."""

    name: Literal["bohb"] = Field("bohb", description="This method.")
