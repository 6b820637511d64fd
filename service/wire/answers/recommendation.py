"""Answers with the learning rate to begin with, by what past jobs chose."""

from pydantic import Field

from service.spec.methods.base import Schedule
from service.wire.answers.base import JOB_ID, Answer, example

# An example: one past run is all the evidence.
_EVIDENCE = {
    "job_id": JOB_ID,
    "seed": 0,
    "optimizer": "sgd",
    "global_batch_size": 64,
    "lr_schedule": "linear",
    "learning_rate": 0.1,
    "scaled_learning_rate": 0.2,
    "val_accuracy": 0.9583,
    "test_accuracy": 0.9472,
}
_RECOMMENDATION = {
    "model": "lenet5",
    "dataset": "digits",
    "optimizer": "sgd",
    "global_batch_size": 128,
    "learning_rate": 0.2,
    "low": 0.2,
    "high": 0.2,
    "schedule": {"learning_rates": [0.2, 0.2, 0.2], "lr_schedule": "linear", "warmup_epochs": 0},
    "rule": "linear",
    "note": "The evidence has batch 64; for batch 128 its learning rates of sgd were scaled in proportion to the batch "
    "(Goyal et al. 2017, arXiv 1706.02677).",
    "evidence": [_EVIDENCE],
}


class Evidence(Answer):
    """What a past run of stpt chose, and how good it became: a piece of evidence for a recommendation."""

    model_config = example(_EVIDENCE)

    job_id: str = Field(description="Id of the job that the run belongs to.")
    seed: int = Field(description="Seed of its random numbers.")
    optimizer: str = Field(description="Name of the optimizer.")
    global_batch_size: int = Field(description="Samples of an iteration, over all workers.")
    lr_schedule: str = Field(description="What the learning rates were multiplied by over the training.")
    learning_rate: float = Field(description="Learning rate after the search, before lr_schedule.")
    scaled_learning_rate: float = Field(description="That learning rate, scaled to the batch of the recommendation.")
    val_accuracy: float = Field(description="Best validation accuracy of the run.")
    test_accuracy: float = Field(description="Test accuracy of the same epoch.")


class Recommendation(Answer):
    """The learning rate to begin with, before lr_schedule, by what past runs of stpt have chosen."""

    model_config = example(_RECOMMENDATION)

    model: str = Field(description="Name of the model.")
    dataset: str = Field(description="Name of the dataset.")
    optimizer: str = Field(description="Name of the optimizer.")
    global_batch_size: int = Field(description="Samples of an iteration, over all workers.")
    learning_rate: float = Field(description="The median of the evidence's scaled learning rates.")
    low: float = Field(description="The smallest of the evidence's scaled learning rates.")
    high: float = Field(description="The largest of the evidence's scaled learning rates.")
    schedule: Schedule = Field(
        description="Schedule of the run with the best validation accuracy, for the method `replay`."
    )
    rule: str = Field(description="How learning rates of another batch were scaled: none, linear or sqrt.")
    note: str = Field(description="How they were scaled, in a sentence with its source.")
    evidence: list[Evidence] = Field(description="The past runs that it rests on.")
