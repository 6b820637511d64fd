"""How much work the baselines of a job may take."""

import math
from typing import Self

from pydantic import Field, model_validator

from service.spec.types import Frozen, Label


class Budget(Frozen):
    """Training samples of each baseline and seed, its search included; exactly one of these."""

    samples: int | None = Field(None, ge=1, lt=2**53, description="So many.")
    epochs: float | None = Field(None, gt=0, le=1e9, description="Those of so many epochs.")
    relative_to: Label | None = Field(None, description="As many as the run of stpt with this label took, times:")
    times: float = Field(1.0, gt=0, le=1e6, description="Only with relative_to.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in ("samples", "epochs", "relative_to") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of samples, epochs, relative_to; it has {len(given)}")
        if self.relative_to is None and not math.isclose(self.times, 1):
            raise ValueError("times belongs to relative_to; leave it out")
        return self
