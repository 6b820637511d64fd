"""BOHB: multivariate TPE under Hyperband (after Falkner et al. 2018, arXiv 1807.01774)."""

from typing import Literal

from pydantic import Field

from service.spec.methods.halving import HalvingMethod


class BohbMethod(HalvingMethod):
    """Hyperband whose trials multivariate TPE proposes, by one density over all hyperparameters (after Falkner et al.
    2018, arXiv 1807.01774)."""

    name: Literal["bohb"] = Field("bohb", description="Name of this method.")
