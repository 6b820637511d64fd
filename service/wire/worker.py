"""What a worker reports, as it travels to the API and lies in SQL. A non-finite number travels as null."""

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from service.spec.types import MAX_LEARNING_RATE, Frozen, Label, LearningRate

Count = Annotated[int, Field(ge=0, lt=2**63)]
Retry = Annotated[int, Field(ge=0, le=10)]  # as Pretrain.max_retries
AppliedRate = Annotated[float, Field(ge=0, le=MAX_LEARNING_RATE)]  # 0 where lr_schedule has come down to it
Seconds = Annotated[float, Field(ge=0)]
MAX_BRANCHES = (64 + 16 + 2) * 11  # candidates and those that extend them, of every retry
MAX_LAYERS, MAX_SAMPLES = 1000, 200  # of telemetry: parameter tensors, and samples of an epoch
MAX_LAYER_VALUES = 20_000  # layers x samples of an epoch
Accuracy = Annotated[float, Field(ge=0, le=1)]

BranchState = Literal[
    "chosen",  # its learning rate became the epoch's
    "lost",  # another one was better
    "diverged",  # its metric was not finite
    "rolled_back",  # it was chosen, and its Main-train was undone
]


class BranchRecord(Frozen):
    """One candidate learning rate of one Pre-train. `number` counts from 1 over all retries of the epoch."""

    number: int = Field(ge=1)
    retry: Retry = 0
    learning_rate: LearningRate
    metric: float | None
    end_metric: float | None = Field(None, description="Audited: validation metric at the end of the epoch.")
    state: BranchState
    iterations: Count
    samples: Count
    seconds: Seconds


class AuditRecord(Frozen):
    """What the epoch's losers would have come to. A `None`: all ended, or began, alike."""

    branches: int = Field(ge=1, description="Losing branches trained to the end of the epoch.")
    samples: Count = Field(description="Training samples that took, not counted elsewhere.")
    regret: float = Field(ge=0, description="How much better the best of them ended than the chosen one; 0: none did.")
    rank_correlation: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        description="Spearman's, of the metric after alpha iterations with that at the end, the chosen one included."
    )


Norm = Annotated[float, Field(ge=0)] | None  # None: not finite


class LayersRecord(Frozen):
    """Telemetry of one epoch (S3, Fig. 2): at sampled steps, norms of each layer's weights and gradient.

    A step counts from 0 over the training, the iterations that made the model alone: `first_step` + i x `every` is how
    often the weights of sample i had been updated. Of each quantity: a list for each layer, a number for each sample.
    """

    names: list[Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_.-]+$")]] = Field(
        min_length=1, max_length=MAX_LAYERS, description="Of the parameter tensors, from the input on."
    )
    first_step: Count
    every: int = Field(ge=1, lt=2**31)
    lwn: list[list[Norm]] = Field(description="||w||, before the step.")
    lgn: list[list[Norm]] = Field(description="||g||, of the whole global batch, weight decay not included.")
    trust_ratio: list[list[Norm]] | None = Field(
        description="That the optimizer took the step with; null: it has none."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.names)) < len(self.names):
            raise ValueError("each layer once")
        samples = len(self.lwn[0]) if self.lwn else 0
        for quantity in (self.lwn, self.lgn, self.trust_ratio):
            if quantity is not None and [len(values) for values in quantity] != [samples] * len(self.names):
                raise ValueError("each quantity has a list for each layer, and each list as many numbers")
        if not 1 <= samples <= most_samples(len(self.names)):
            raise ValueError(f"an epoch of {len(self.names)} layers has 1 to {most_samples(len(self.names))} samples")
        return self


def most_samples(layers: int) -> int:
    """Of an epoch, so that its record stays below a megabyte."""
    return min(MAX_SAMPLES, MAX_LAYER_VALUES // layers)


class CheckpointRef(Frozen):
    """A checkpoint, by the folder it lies in under the job's; its manifest vouches for every other byte."""

    name: str = Field(max_length=100, pattern=r"^[a-z0-9-]+$")
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class EpochRecord(Frozen):
    """One epoch of one trial. `samples` counts every training sample processed, all branches included."""

    label: Label = Field("stpt", description="Of the run that the trial belongs to.")
    trial: int = Field(1, ge=1, lt=2**31)
    epoch: int = Field(ge=1, lt=2**31)
    phase: Literal["warmup", "stpt", "scheduled"]
    learning_rate: LearningRate = Field(description="Before lr_schedule.")
    first_learning_rate: AppliedRate = Field(description="Of the epoch's first iteration, under lr_schedule.")
    last_learning_rate: AppliedRate = Field(description="Of its last iteration.")
    train_loss: float | None
    val_loss: float | None
    val_accuracy: Accuracy
    test_accuracy: Accuracy
    retries: Retry = 0
    rollbacks: Annotated[int, Field(ge=0, le=MAX_BRANCHES)] = 0
    iterations: Count = Field(description="Training iterations of the epoch, all branches and retries included.")
    samples: Count
    evaluation_samples: Count
    seconds: Seconds
    pretrain_seconds: Seconds
    main_train_seconds: Seconds
    branches: list[BranchRecord] = Field(max_length=MAX_BRANCHES)
    audit: AuditRecord | None = None
    layers: LayersRecord | None = Field(None, description="Telemetry, where the job asks for it.")
    source_trial: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None,
        description="Trial whose checkpoint the epoch went on from: its own, or one whose weights were copied.",
    )
    source_epoch: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="Epoch of that checkpoint. Both null: it went on in the same process."
    )
    checkpoint: CheckpointRef | None = Field(None, description="Of the state after this epoch.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if [branch.number for branch in self.branches] != list(range(1, len(self.branches) + 1)):
            raise ValueError("branches must be numbered 1, 2, 3, …")
        chosen = [branch.learning_rate for branch in self.branches if branch.state == "chosen"]
        if chosen != ([self.learning_rate] if self.phase == "stpt" else []):
            raise ValueError("a Pre-train has exactly one chosen branch, whose learning rate is the epoch's")
        return self

    def fingerprint(self) -> str:
        """SHA-256 of the record: equal for a repeat of the same report."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


TrialState = Literal[
    "pending",  # it has not begun
    "running",  # it has begun; epochs are still to come
    "completed",  # its last epoch is recorded
    "stopped",  # ended before its last epoch: by its search, or with its job
    "diverged",  # ended because its numbers were not finite any more
    "failed",  # ended by an error of its own; its job goes on
]


class TrialRecord(Frozen):
    """A trial begins, changes its hyperparameters, or ends before its last epoch."""

    label: Label = Field(description="Of the run that the trial belongs to.")
    trial: int = Field(ge=1, lt=2**31)
    key: str | None = Field(None, max_length=40, description="What the search itself calls it.")
    seed: int = Field(ge=0, lt=2**63)
    config: dict[str, Any] = Field(
        {}, description="Hyperparameters that a search has chosen; of lr-range-test the test's curve, too."
    )
    epochs: int = Field(ge=1, lt=2**31, description="That it trains at most.")
    state: TrialState
    message: Annotated[str, Field(max_length=4000)] | None = Field(None, description="Why it ended.")


class TrialProgress(Frozen):
    """What an earlier attempt, or this one, has recorded of a trial."""

    label: str
    trial: int
    key: str | None
    seed: int
    config: dict[str, Any]
    state: TrialState
    epochs: int = Field(ge=0, description="Recorded.")
    samples: Count


class Outcome(Frozen):
    """How an attempt ended. `code` and `message` say why it failed."""

    state: Literal["succeeded", "failed"]
    code: Annotated[str, Field(max_length=100)] | None = None
    message: Annotated[str, Field(max_length=4000)] | None = None

    @model_validator(mode="after")
    def _failure_says_why(self) -> Self:
        if (self.state == "failed") != bool(self.code and self.message):
            raise ValueError("a failure, and only a failure, has a code and a message")
        return self


class ResumePoint(Frozen):
    """A recorded epoch that has a checkpoint."""

    label: str = "stpt"
    trial: int = 1
    epoch: int = Field(ge=1)
    val_accuracy: Accuracy
    checkpoint: CheckpointRef


class Assignment(Frozen):
    """What the Ray job of an attempt gets for its ticket: the job's spec and the token to report with."""

    job_id: str
    attempt: int
    spec: str = Field(description="JobSpec as JSON.")
    report_token: str = Field(repr=False)
    resume: list[ResumePoint] = Field([], description="Where the training may go on, newest first.")
    trials: list[TrialProgress] = Field([], description="What has begun already.")
