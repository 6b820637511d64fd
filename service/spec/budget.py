"""How much work a method of a job may take."""

import math
from typing import Self

from pydantic import Field, model_validator

from service.spec.types import Frozen, Label


class Budget(Frozen):
    """The training samples that each baseline, and each run of stpt that does not set it, may take with each seed, its
    search included; given by exactly one of `samples`, `epochs` and `relative_to`."""

    samples: int | None = Field(None, ge=1, lt=2**53, description="The budget in training samples.")
    epochs: float | None = Field(
        None, gt=0, le=1e9, description="The budget as a number of epochs of the job, whose samples it has."
    )
    relative_to: Label | None = Field(
        None, description="Label of a run of stpt: the budget is what that took, times `times`."
    )
    times: float = Field(1.0, gt=0, le=1e6, description="Factor on what the run `relative_to` took; only with that.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in ("samples", "epochs", "relative_to") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of samples, epochs, relative_to; it has {len(given)}")
        if self.relative_to is None and not math.isclose(self.times, 1):
            raise ValueError("times belongs to relative_to; leave it out")
        return self
