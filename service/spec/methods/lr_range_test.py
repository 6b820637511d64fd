"""The learning-rate range test (Smith 2017, arXiv 1506.01186), then a training by what it suggests."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.methods.base import Schedule, WholeBudgetMethod
from service.spec.types import LearningRate

if TYPE_CHECKING:
    from service.spec.job import JobSpec

Suggestion = Literal["divergence", "steepest"]


class LrRangeTestMethod(WholeBudgetMethod):
    """The learning-rate range test (Smith 2017, arXiv 1506.01186), as `lr_find` of fastai and of PyTorch Lightning has
    it: from the initial weights the learning rate rises exponentially, iteration by iteration, until the smoothed
    training loss diverges; then one training, from the initial weights again, with what that suggests. Both take the
    whole budget."""

    name: Literal["lr-range-test"] = Field("lr-range-test", description="Name of this method.")
    min_learning_rate: LearningRate = Field(1e-7, description="Learning rate of the test's first iteration.")
    max_learning_rate: LearningRate = Field(
        10.0, description="Learning rate of its last iteration, where the loss does not diverge before."
    )
    iterations: int | None = Field(
        100,
        ge=10,
        le=100_000,
        description="Iterations of the test at most, each of a global batch; null: those of an epoch.",
    )
    smoothing: float = Field(
        0.98, ge=0, lt=1, description="Weight of the past in the exponential moving average of the loss."
    )
    divergence_threshold: float = Field(
        4.0, gt=1, le=1e6, description="The smoothed loss has diverged above this many times its least value so far."
    )
    suggestion: Suggestion = Field(
        "steepest",
        description="Train with: steepest, where the smoothed loss fell the most from one iteration to the next; "
        "divergence, a tenth of where it diverged, or of max_learning_rate where it did not.",
    )
    lr_schedule: Literal["linear", "one-cycle"] = Field(
        "one-cycle",
        description="How the learning rate goes: linear, down to 0; one-cycle, the 1cycle policy (Smith & "
        "Topin 2018, arXiv 1708.07120) with it as the highest.",
    )

    @property
    def is_replayable(self) -> bool:
        """Whether one learning rate an epoch and an lr_schedule tell what the training did: not under the 1cycle
        policy."""
        return self.lr_schedule == "linear"

    def search_samples(self, spec: "JobSpec", epoch_samples: int) -> int:
        """The training samples of the range test, where the loss does not diverge before its end."""
        return epoch_samples if self.iterations is None else self.iterations * spec.global_batch_size

    def searched_iterations(self, config: Mapping[str, Any]) -> int:
        """The iterations that the range test of a trial took, by what its record says; 0 where that says nothing
        yet."""
        return int(config["range_test"]["iterations"]) if config else 0

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that trains again as a trial did behind its test: its learning rates under the linear
        lr_schedule."""
        assert self.lr_schedule == "linear"
        return Schedule(learning_rates=list(learning_rates), lr_schedule="linear")

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """An error where the learning rate would not rise from `min_learning_rate` to `max_learning_rate`."""
        if self.min_learning_rate < self.max_learning_rate:
            return []
        message = f"must be above min_learning_rate ({self.min_learning_rate:g}); raise it, or lower that"
        return [FieldError(f"{field}.max_learning_rate", self.max_learning_rate, message)]
