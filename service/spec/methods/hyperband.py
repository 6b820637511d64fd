"""Hyperband."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

if TYPE_CHECKING:
    pass


from service.spec.methods.halving import HalvingMethod


class HyperbandMethod(HalvingMethod):
    """Trials that do badly are stopped early (Li et al. 2018, arXiv 1603.06560)."""

    name: Literal["hyperband"] = Field("hyperband", description="This method.")
