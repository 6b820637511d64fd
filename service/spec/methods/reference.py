"""The reference of STPT (Yamada et al., section III): a constant learning rate, divided when accuracy saturates."""

from typing import Literal

from pydantic import Field

from service.spec.methods.base import MethodSpec
from service.spec.types import LearningRate


class ReferenceMethod(MethodSpec):
    """The reference of STPT (Yamada et al., section III): a constant learning rate, divided when validation accuracy
    saturates; no warm-up."""

    name: Literal["reference"] = Field("reference", description="Name of this method.")
    learning_rate: LearningRate = Field(0.1, description="Learning rate until it is divided for the first time.")
    factor: float = Field(10.0, gt=1, le=1e6, description="What the learning rate is divided by.")
    patience: int = Field(
        3, ge=1, le=100_000, description="Epochs without a new best validation accuracy until it counts as saturated."
    )
