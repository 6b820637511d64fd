"""Answers about batch ramps, seed by seed."""

from pydantic import Field

from service.wire.answers.base import JOB_ID, Answer, example

# An example: a ramp that has not come to the momentum yet.
_RAMP_STEP = {"global_batch_size": 4096, "learning_rate": 0.0141, "momentum": 0.9, "effective_learning_rate": 0.141}
_RAMP = {"seed": 0, "by_learning_rate": _RAMP_STEP, "by_momentum": None}


class RampStep(Answer):
    """A training of a batch ramp: its batch, and the learning rate and momentum that go with it."""

    model_config = example(_RAMP_STEP)

    global_batch_size: int = Field(description="Samples of an iteration, over all workers.")
    learning_rate: float = Field(description="Learning rate of the training.")
    momentum: float = Field(description="Momentum of the training.")
    effective_learning_rate: float = Field(description="learning_rate / (1 - momentum)")


class BatchRamp(Answer):
    """The training with the largest batch before validation accuracy fell, in each phase of one seed's ramp, so far."""

    model_config = example(_RAMP)

    seed: int = Field(description="Seed of the random numbers.")
    by_learning_rate: RampStep | None = Field(
        description="The largest while the learning rate follows the batch; null: none was good."
    )
    by_momentum: RampStep | None = Field(
        description="The largest while the momentum follows the batch; null: none was good."
    )


class BatchRamps(Answer):
    """The batch ramps of a job, one for each seed."""

    model_config = example({"job_id": JOB_ID, "items": [_RAMP]})

    job_id: str = Field(description="Id of the job.")
    items: list[BatchRamp] = Field(description="The ramps, seed by seed.")
