"""Polling of learning rates (Tan, Choong & Lau 2025, doi 10.3390/jeta4010001)."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

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
        [1e-5, 1e-4, 1e-3, 1e-2, 1e-1], min_length=2, max_length=64, description="The candidates, rising."
    )
    every: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1, description="Iterations from one poll to the next, which go by the learning rate that it chose."
    )
    criterion: Literal["loss", "accuracy"] = Field(
        "loss",
        description="Of the batch, behind the step: the least loss, or the highest accuracy. Ties: the smallest.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.learning_rates != sorted(set(self.learning_rates)):
            raise ValueError("learning_rates must rise, each one once")
        return self

    def polls(self, epochs: int, iterations: int) -> int:
        """Return how many polls a training of so many epochs, of `iterations` iterations each, has."""
        return math.ceil(epochs * iterations / self.every)

    def search_samples(self, spec: "JobSpec", epoch_samples: int) -> int:
        """Return the samples of the polls of one epoch, at most."""
        polls = self.polls(1, epoch_samples // spec.global_batch_size)
        return polls * len(self.learning_rates) * spec.global_batch_size

    def training_samples(self, spec: "JobSpec", epoch_samples: int, epochs: int) -> int:
        """Return the samples of a training of so many epochs, polls included."""
        polls = self.polls(epochs, epoch_samples // spec.global_batch_size)
        return epochs * epoch_samples + polls * len(self.learning_rates) * spec.global_batch_size

    def training_epochs(self, spec: "JobSpec", epoch_samples: int, budget: int | None) -> int:
        """Return as many whole epochs as the budget has room for, polls included, at least one."""
        if budget is None:
            return spec.epochs
        epochs = min(MAX_EPOCHS, int(budget / epoch_samples / (1 + len(self.learning_rates) / self.every)) + 1)
        while epochs > 1 and self.training_samples(spec, epoch_samples, epochs) > budget:
            epochs -= 1
        return max(1, epochs)

    def work(self, spec: "JobSpec", facts: Facts) -> Work:
        """Return its training, and the samples that it takes, polls included."""
        epochs = self.training_epochs(spec, facts.epoch_samples, facts.budget)
        return Work(1, self.training_samples(spec, facts.epoch_samples, epochs))

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """Return what is wrong with it in that job: where training tells no accuracy, the loss must decide."""
        if self.criterion == "loss" or spec.task.name == "classification":
            return []
        message = f"cannot be told of a batch by the task {spec.task.name}; use loss"
        return [FieldError(f"{field}.criterion", self.criterion, message)]
