"""Forecasts."""

from pydantic import Field

from service.wire.answers.base import Answer


class RunCost(Answer):
    """What one method of a spec costs."""

    method: str = Field(description="Name of the method.")
    trainings: int = Field(description="Trainings that it has.")
    samples: int = Field(description="Training samples, search included, evaluation not.")
    iterations: float = Field(description="Of the global batch.")
    relative_to_sweep: float = Field(description="To a whole training for each candidate.")


class SearchArea(Answer):
    """The learning rates within reach of one epoch's Pre-train."""

    epoch: int = Field(description="Number of the epoch, from 1.")
    low: float = Field(description="The smallest learning rate within reach.")
    high: float = Field(description="The largest learning rate within reach.")


class Plan(Answer):
    """What a spec amounts to, before anything starts."""

    train_samples: int = Field(description="Training samples of an epoch, without the validation split.")
    iterations_per_epoch: int = Field(description="Iterations of an epoch.")
    pretrain_iterations: int = Field(description="alpha")
    main_train_iterations: int = Field(description="beta")
    runs: list[RunCost] = Field(description="What each method costs.")
    search_area: list[SearchArea] = Field(description="The learning rates within reach of each epoch's Pre-train.")
