"""Forecasts."""

from pydantic import Field

from service.wire.answers.base import Answer


class SearchArea(Answer):
    """The learning rates within reach of one epoch's Pre-train."""

    epoch: int = Field(description="Number of the epoch, from 1.")
    low: float = Field(description="The smallest learning rate within reach.")
    high: float = Field(description="The largest learning rate within reach.")


class RunCost(Answer):
    """What one run of a spec costs."""

    label: str = Field(description="Label of the run.")
    method: str = Field(description="Name of the method.")
    trainings: int = Field(description="Trainings that it has.")
    samples: int = Field(description="Training samples, search included, evaluation not.")
    iterations: float = Field(description="Of the global batch.")
    relative_to_sweep: float = Field(description="To a whole training for each candidate.")
    pretrain_iterations: int | None = Field(description="alpha; null: it has no Pre-train.")
    main_train_iterations: int | None = Field(description="beta; null: it has no Pre-train.")
    search_area: list[SearchArea] = Field(description="The learning rates within reach of each epoch's Pre-train.")


class Plan(Answer):
    """What a spec amounts to, before anything starts."""

    train_samples: int = Field(description="Training samples of an epoch, without the validation split.")
    iterations_per_epoch: int = Field(description="Iterations of an epoch.")
    runs: list[RunCost] = Field(description="What each run costs.")
