"""Polling of learning rates on each batch (Tan, Choong & Lau 2025, doi 10.3390/jeta4010001)."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.methods.base import MAX_EPOCHS, Facts, WholeBudgetMethod, Work
from service.spec.types import LearningRate

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class PollingMethod(WholeBudgetMethod):
    """Polling (Tan, Choong & Lau 2025, doi 10.3390/jeta4010001): one training that takes the step of a batch at each of
    several learning rates, from the same weights and with the same gradient, and keeps the one behind which that batch
    does best. It takes the whole budget, in which each forward pass of a poll counts like one that trains."""

    is_replayable: ClassVar[bool] = False

    name: Literal["polling"] = Field("polling", description="Name of this method.")
    learning_rates: list[LearningRate] = Field(
        [1e-5, 1e-4, 1e-3, 1e-2, 1e-1], min_length=2, max_length=64, description="Learning rates to try, rising."
    )
    every: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1, description="Iterations from one poll to the next; those between go by the learning rate that was chosen."
    )
    criterion: Literal["loss", "accuracy"] = Field(
        "loss",
        description="What decides, of the batch behind the step: the least loss, or the highest accuracy; on a tie the "
        "smallest learning rate.",
    )

    def polls(self, epochs: int, iterations: int) -> int:
        """The number of polls in a training of so many epochs, of `iterations` iterations each."""
        return math.ceil(epochs * iterations / self.every)

    def search_samples(self, spec: "JobSpec", epoch_samples: int) -> int:
        """The samples of the polls in the first epoch, which has the most: without them no epoch can be trained.
        `epoch_samples` are the training samples of an epoch."""
        polls = self.polls(1, epoch_samples // spec.global_batch_size)
        return polls * len(self.learning_rates) * spec.global_batch_size

    def training_samples(self, spec: "JobSpec", epoch_samples: int, epochs: int) -> int:
        """The samples of a training of so many epochs, of `epoch_samples` training samples each, polls included."""
        polls = self.polls(epochs, epoch_samples // spec.global_batch_size)
        return epochs * epoch_samples + polls * len(self.learning_rates) * spec.global_batch_size

    def training_epochs(self, spec: "JobSpec", epoch_samples: int, budget: int | None) -> int:
        """The number of whole epochs that the budget has room for, polls included, at least one; without a budget the
        job's. `epoch_samples` and `budget` are in training samples."""
        if budget is None:
            return spec.epochs
        epochs = min(MAX_EPOCHS, int(budget / epoch_samples / (1 + len(self.learning_rates) / self.every)) + 1)
        while epochs > 1 and self.training_samples(spec, epoch_samples, epochs) > budget:
            epochs -= 1
        return max(1, epochs)

    def work(self, spec: "JobSpec", facts: Facts) -> Work:
        """The one training of the method with one seed, and the samples that it takes, polls included."""
        epochs = self.training_epochs(spec, facts.epoch_samples, facts.budget)
        return Work(1, self.training_samples(spec, facts.epoch_samples, epochs))

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """Errors where the learning rates do not rise, and where accuracy should decide and the job's task tells none
        of a batch."""
        errors = []
        if self.learning_rates != sorted(set(self.learning_rates)):
            message = "must rise; sort them, and leave repetitions out"
            errors.append(FieldError(f"{field}.learning_rates", self.learning_rates, message))
        if self.criterion == "accuracy" and spec.task.name != "classification":
            message = f"cannot be told of a batch by the task {spec.task.name}; use loss"
            errors.append(FieldError(f"{field}.criterion", self.criterion, message))
        return errors
