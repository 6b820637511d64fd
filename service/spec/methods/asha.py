"""Asynchronous successive halving."""

from typing import Literal

from pydantic import Field

from service.spec.methods.halving import HalvingMethod


class AshaMethod(HalvingMethod):
    """Trials that do badly are stopped early, without waiting (Li et al. 2020, arXiv 1810.05934)."""

    name: Literal["asha"] = Field("asha", description="This method.")
