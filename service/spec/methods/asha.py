"""Asynchronous successive halving (ASHA, Li et al. 2020, arXiv 1810.05934)."""

from typing import Literal

from pydantic import Field

from service.spec.methods.halving import HalvingMethod


class AshaMethod(HalvingMethod):
    """A search by asynchronous successive halving: trials that do badly are stopped early, without waiting for the
    others of their rung (ASHA, Li et al. 2020, arXiv 1810.05934)."""

    name: Literal["asha"] = Field("asha", description="Name of this method.")
