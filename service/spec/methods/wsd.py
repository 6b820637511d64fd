"""Warm-up, stable, decay (WSD, Hu et al. 2024, MiniCPM, arXiv 2404.06395)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.methods.base import WholeBudgetMethod
from service.spec.types import LearningRate

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class WsdMethod(WholeBudgetMethod):
    """One training whose learning rate warms up linearly, stays, and decays to 0 at the end (WSD, Hu et al. 2024,
    MiniCPM, arXiv 2404.06395). The decay is the cool-down 1 - sqrt over the last fifth of the training that Hägele et
    al. 2024 (arXiv 2405.18392) advise. It takes the whole budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["wsd"] = Field("wsd", description="Name of this method.")
    learning_rate: LearningRate | None = Field(
        None, description="Learning rate between warm-up and decay; null: `initial_learning_rate`."
    )
    warmup: float = Field(0.05, ge=0, le=1, description="Share of all iterations over which the learning rate rises.")
    decay: float = Field(
        0.2, ge=0, le=1, description="Share of all iterations, the last ones, over which the learning rate falls."
    )

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """An error where warm-up and decay would overlap."""
        if self.warmup + self.decay <= 1:
            return []
        message = f"must be at most 1 together with warmup ({self.warmup:g}); lower one of them"
        return [FieldError(f"{field}.decay", self.decay, message)]
