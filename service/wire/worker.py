"""What a worker reports and is given, as it travels to the API and lies in SQL. A non-finite number travels as null."""

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
    "eliminated",  # it was no finalist of a race
    "diverged",  # its metric was not finite
    "rolled_back",  # it was chosen, and its Main-train was undone
]


class BranchRecord(Frozen):
    """One branch, which is one candidate learning rate of one Pre-train. `number` counts from 1 over all retries of the
    epoch."""

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
    """What the losing branches of an epoch would have come to. `rank_correlation` is null where all ended, or began,
    alike."""

    branches: int = Field(ge=1, description="Losing branches trained to the end of the epoch.")
    samples: Count = Field(description="Training samples that the audit took; they are not counted elsewhere.")
    regret: float = Field(ge=0, description="How much better the best loser ended than the chosen branch; 0: none did.")
    rank_correlation: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        description="Spearman's rank correlation of the metric after alpha iterations with that at the epoch's end."
    )


Norm = Annotated[float, Field(ge=0)] | None  # None: not finite


class LayersRecord(Frozen):
    """Telemetry of one epoch: at sampled steps, the norms of each layer's weights and gradient (Do et al., "Revisiting
    LARS for Large Batch Training Generalization of Neural Networks", Fig. 2).

    A step counts from 0 over the training, the iterations that made the model alone: `first_step` + i x `every` is how
    often the weights of sample i had been updated. Of each quantity: a list for each layer, a number for each sample.
    """

    names: list[Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_.-]+$")]] = Field(
        min_length=1, max_length=MAX_LAYERS, description="Names of the parameter tensors, from the input on."
    )
    first_step: Count
    every: int = Field(ge=1, lt=2**31)
    lwn: list[list[Norm]] = Field(description="||w||, before the step.")
    lgn: list[list[Norm]] = Field(description="||g||, of the whole global batch, weight decay not included.")
    trust_ratio: list[list[Norm]] | None = Field(
        description="Trust ratio that the optimizer took the step with; null: it has none."
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
    """The largest number of samples of telemetry in an epoch of so many layers, so that its record stays below a
    megabyte."""
    return min(MAX_SAMPLES, MAX_LAYER_VALUES // layers)


class CheckpointRef(Frozen):
    """A reference to a checkpoint by its folder's name under those of the job; its manifest vouches for every other
    byte."""

    name: str = Field(max_length=100, pattern=r"^[a-z0-9-]+$")
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class EpochRecord(Frozen):
    """The record of one epoch of one trial. `samples` counts every training sample processed, all branches included."""

    label: Label = Field("stpt", description="Label of the run that the trial belongs to.")
    trial: int = Field(1, ge=1, lt=2**31)
    epoch: int = Field(ge=1, lt=2**31)
    phase: Literal["warmup", "stpt", "scheduled"]
    learning_rate: LearningRate = Field(description="The epoch's learning rate before lr_schedule.")
    first_learning_rate: AppliedRate = Field(description="Learning rate of the first iteration, under lr_schedule.")
    last_learning_rate: AppliedRate = Field(description="Learning rate of the last iteration, under lr_schedule.")
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
    layers: LayersRecord | None = Field(None, description="Telemetry of the layers, where the job asks for it.")
    source_trial: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None,
        description="Trial whose checkpoint the epoch went on from: its own, or one whose weights were copied.",
    )
    source_epoch: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="Epoch of that checkpoint. Both null: it went on in the same process."
    )
    checkpoint: CheckpointRef | None = Field(
        None, description="Checkpoint of the state after this epoch; null: there is none."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if [branch.number for branch in self.branches] != list(range(1, len(self.branches) + 1)):
            raise ValueError("branches must be numbered 1, 2, 3, …")
        chosen = [branch.learning_rate for branch in self.branches if branch.state == "chosen"]
        if len(chosen) != (self.phase == "stpt"):
            raise ValueError("a Pre-train has exactly one chosen branch, and another epoch has none")
        if chosen and not self._between_finalists() and chosen != [self.learning_rate]:
            raise ValueError("an epoch's learning rate is that of its chosen branch, or between a race's finalists")
        return self

    def _between_finalists(self) -> bool:
        rates = [branch.learning_rate for branch in self.branches if branch.state != "eliminated"]
        return len(rates) < len(self.branches) and min(rates) <= self.learning_rate <= max(rates)

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
    """The report that a trial begins, changes its hyperparameters, or ends before its last epoch."""

    label: Label = Field(description="Label of the run that the trial belongs to.")
    trial: int = Field(ge=1, lt=2**31)
    key: str | None = Field(None, max_length=40, description="What the search itself calls it.")
    seed: int = Field(ge=0, lt=2**63)
    config: dict[str, Any] = Field(
        {}, description="Hyperparameters that a search has chosen; of lr-range-test the test's curve, too."
    )
    epochs: int = Field(ge=1, lt=2**31, description="Epochs that the trial trains at most.")
    state: TrialState
    message: Annotated[str, Field(max_length=4000)] | None = Field(None, description="Why it ended.")


class TrialProgress(Frozen):
    """What is recorded of a trial so far, by an earlier attempt or this one, for a driver that goes on with it."""

    label: str
    trial: int
    key: str | None
    seed: int
    config: dict[str, Any]
    state: TrialState
    epochs: int = Field(ge=0, description="Number of recorded epochs.")
    samples: Count


class Receipt(Frozen):
    """The answer to the report of an epoch or a trial: it is recorded, and the job is to go on or to pause."""

    pause: bool = Field(
        False, description="End in order behind the checkpoint of this report, with the outcome paused."
    )


class Outcome(Frozen):
    """The report of how an attempt ended; `code` and `message` say why it failed."""

    state: Literal["succeeded", "failed", "paused"]
    code: Annotated[str, Field(max_length=100)] | None = None
    message: Annotated[str, Field(max_length=4000)] | None = None

    @model_validator(mode="after")
    def _failure_says_why(self) -> Self:
        if (self.state == "failed") != bool(self.code and self.message):
            raise ValueError("a failure, and only a failure, has a code and a message")
        return self


class Heartbeat(Frozen):
    """The report that an attempt lives, sent every few seconds: how far it is, and what it waits for."""

    iterations: Count | None = Field(
        None, description="Forward passes in training and evaluation so far, of this attempt; null: not known yet."
    )
    waits_for: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="What keeps it from getting on at present, in words; null: nothing."
    )


class ResumePoint(Frozen):
    """A recorded epoch that has a checkpoint, which a training may go on from."""

    label: str = "stpt"
    trial: int = 1
    epoch: int = Field(ge=1)
    val_accuracy: Accuracy
    checkpoint: CheckpointRef


class Assignment(Frozen):
    """What the Ray job of an attempt gets for its ticket: the job's spec and the token to report with."""

    job_id: str
    attempt: int
    spec: str = Field(description="The JobSpec as JSON.")
    report_token: str = Field(repr=False)
    resume: list[ResumePoint] = Field([], description="Where the training may go on, newest first.")
    trials: list[TrialProgress] = Field(
        [], description="Trials that have begun already, with what is recorded of them."
    )
    retry_of: str | None = Field(None, description="Job whose files are to be taken over, where there are none yet.")
