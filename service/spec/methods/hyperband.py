"""Hyperband."""

from typing import Literal

from pydantic import Field

from service.spec.methods.halving import HalvingMethod


class HyperbandMethod(HalvingMethod):
    """Trials that do badly are stopped early (Li et al. 2018, arXiv 1603.06560)."""

    name: Literal["hyperband"] = Field("hyperband", description="This method.")
