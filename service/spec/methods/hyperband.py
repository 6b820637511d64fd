"""Hyperband (Li et al. 2018, arXiv 1603.06560)."""

from typing import Literal

from pydantic import Field

from service.spec.methods.halving import HalvingMethod


class HyperbandMethod(HalvingMethod):
    """A search by Hyperband: brackets of successive halving, in which trials that do badly are stopped early (Li et al.
    2018, arXiv 1603.06560)."""

    name: Literal["hyperband"] = Field("hyperband", description="Name of this method.")
