"""Answers with the forecast of what a spec would take."""

from pydantic import Field

from service.wire.answers.base import Answer


class SearchArea(Answer):
    """The learning rates within reach of one epoch's Pre-train, whatever is chosen before (STPT, Yamada et al., Fig.
    9)."""

    epoch: int = Field(description="Number of the epoch, from 1.")
    low: float = Field(description="The smallest learning rate within reach.")
    high: float = Field(description="The largest learning rate within reach.")


class RunCost(Answer):
    """What one run of a spec would cost over all its seeds, at most."""

    label: str = Field(description="Label of the run.")
    method: str = Field(description="Name of the method.")
    trainings: int = Field(description="Number of trainings.")
    samples: int = Field(description="Training samples, search included, evaluation not.")
    iterations: float = Field(description="Iterations of the global batch: samples / global_batch_size.")
    relative_to_sweep: float = Field(description="Cost relative to a whole training for each candidate.")
    pretrain_iterations: int | None = Field(
        description="alpha, behind a race if there is one; null: it has no Pre-train."
    )
    main_train_iterations: int | None = Field(
        description="beta, behind a race if there is one; null: it has no Pre-train."
    )
    search_area: list[SearchArea] = Field(
        description="The learning rates within reach of each epoch's Pre-train; of more than 1000 epochs those of "
        "every second, third, … and of the last."
    )


class Plan(Answer):
    """What a spec amounts to in samples and iterations, before anything starts."""

    train_samples: int = Field(description="Training samples of an epoch, without the validation split.")
    iterations_per_epoch: int = Field(description="Iterations of an epoch.")
    runs: list[RunCost] = Field(description="What each run costs.")
