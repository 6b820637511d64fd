"""What the store hands out: frozen records of jobs and of all that belongs to them, one class a noun.

Learning rates are those before lr_schedule unless a name says otherwise; a metric that was not finite is None. What
the states mean stands with JobState in `wire.states`, TrialState and BranchState in `wire.worker`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from service.wire.answers.key import Scope
from service.wire.states import EndReason, JobState
from service.wire.worker import BranchState, TrialState


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job, which is one Ray job. Of its ticket and its report token only hashes are kept."""

    number: int
    submission_id: str
    ticket_hash: str | None = field(repr=False)  # None once exchanged
    token_hash: str | None = field(repr=False)
    created_at: datetime
    ended_at: datetime | None
    message: str | None
    lost: bool  # ended without an outcome
    reason: EndReason | None  # why it ended without an outcome; None while it lives, or with one
    cluster: str | None  # that it was submitted to, a ClusterId as text; None: from before that was kept
    iterations: int | None  # that it has trained or evaluated, as its last heartbeat had it; None: there was none
    progress_at: datetime | None  # when they grew, or an epoch came, by the database's clock; None: it has not begun
    waits_for: str | None  # what keeps it from training at present, in words; None: nothing
    seconds: float | None  # that it had run when they were noted last, by a clock that is not set; None: never


@dataclass(frozen=True)
class AttemptLog:
    """The log of an attempt: its id in Ray, and the end of what it has printed."""

    submission_id: str
    log: str | None  # the end of it; None while it is not kept yet


@dataclass(frozen=True)
class Job:
    """A job: what was asked for, and where it stands."""

    number: int  # order of submission
    id: str
    name: str
    experiment: str
    model: str
    dataset: str
    optimizer: str
    global_batch_size: int
    workers: int
    trials: int  # of all its runs
    spec: dict[str, Any]
    state: JobState
    priority: int  # higher ones are submitted first
    time_limit: int | None  # seconds that its attempts may run, together
    retry_of: str | None  # the failed job that it goes on from
    error_code: str | None
    error_message: str | None
    attempt: int  # number of the live or last attempt; 0: none yet
    last_event: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    not_before: datetime | None  # of the next attempt, by the database's clock; None: at once
    owner: str | None  # of the API key that submitted it; None: of nobody


@dataclass(frozen=True)
class JobWithAttempts(Job):
    """A job and its attempts, oldest first."""

    attempts: Sequence[Attempt]

    @property
    def last_attempt(self) -> Attempt | None:
        """The live attempt of the job, or its last one; None while there is none."""
        return next((one for one in self.attempts if one.number == self.attempt), None)


@dataclass(frozen=True)
class LastAttempt:
    """What is shown of the attempt that a job has come to."""

    number: int
    submission_id: str
    message: str | None
    lost: bool  # ended without an outcome
    waits_for: str | None  # what keeps it from training at present, in words; None: nothing


@dataclass(frozen=True)
class FirstTraining:
    """Where the first training of a job stands: what its last recorded epoch has, None where it has none."""

    length: int  # epochs that it trains at most
    epochs_done: int
    learning_rate: float | None
    val_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class ShownJob(Job):
    """A job as it is shown: with its live or last attempt, None while there is none, and the first trial of its first
    run, None where that has none yet."""

    last_attempt: LastAttempt | None
    first_training: FirstTraining | None


@dataclass(frozen=True)
class Run:
    """A run of a job, which is one method executed for it. Its label tells it from the job's other runs."""

    id: int
    label: str
    method: str


@dataclass(frozen=True)
class NewRun:
    """A run that a new job begins with: a trial for each of `seeds`, of at most `length` epochs."""

    label: str
    method: str
    seeds: Sequence[int]
    length: int


@dataclass(frozen=True)
class Trial:
    """One training of a run; `number` counts from 1 in its run."""

    id: int
    label: str
    method: str
    number: int
    key: str | None  # what the search itself calls it
    seed: int
    config: dict[str, Any] | None  # hyperparameters that a search has chosen
    length: int  # epochs that it trains at most
    state: TrialState
    message: str | None
    lost_samples: int  # of epochs that were trained twice


@dataclass(frozen=True)
class TrialFacts:
    """What a search says of one of its trials: hyperparameters, epochs at most, state, and why it ended."""

    key: str | None
    seed: int
    config: dict[str, Any]
    length: int
    state: TrialState
    message: str | None


@dataclass(frozen=True)
class TrialWithCost(Trial):
    """A trial, its recorded epochs, and the training samples that they took."""

    epochs: int
    samples: int


@dataclass(frozen=True)
class EpochResult:
    """The learning rates of an epoch, and the accuracies (from 0 to 1) at its end."""

    epoch: int
    learning_rate: float
    last_learning_rate: float  # of its last iteration, under lr_schedule
    val_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class TrialWithResults(TrialWithCost):
    """A trial, its epoch with the best validation accuracy (of equals the first), and its last one; None where no epoch
    is recorded."""

    best: EpochResult | None
    last: EpochResult | None


@dataclass(frozen=True)
class TrialWithAccuracies(Trial):
    """A trial and the test accuracies of its recorded epochs, in order."""

    test_accuracies: Sequence[float]


@dataclass(frozen=True)
class PastTraining:
    """A trial of stpt of a job that has succeeded: what it trained by, and the accuracies of its epoch with the best
    validation accuracy."""

    job_id: str
    trial_id: int
    label: str
    optimizer: str
    global_batch_size: int
    lr_schedule: str
    seed: int
    length: int  # epochs that it trained at most
    settled_learning_rate: float | None  # what its search came to; None where that is not kept
    val_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class Epoch:
    """One recorded epoch of one trial. `samples` and `iterations` count all branches and retries; times are in
    seconds."""

    id: int
    trial_id: int
    label: str
    method: str
    trial: int  # its number in the run
    epoch: int
    attempt: int
    fingerprint: str
    phase: str
    learning_rate: float
    first_learning_rate: float
    last_learning_rate: float
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float
    test_accuracy: float
    retries: int
    rollbacks: int
    iterations: int
    samples: int
    evaluation_samples: int
    seconds: float
    pretrain_seconds: float
    main_train_seconds: float
    audit: dict[str, Any] | None
    source_trial: int | None  # number of the trial whose checkpoint the epoch went on from
    source_epoch: int | None
    checkpoint: dict[str, Any] | None
    recorded_at: datetime


@dataclass(frozen=True)
class Branch:
    """One candidate learning rate of one Pre-train; `number` counts from 1 over all retries of its epoch."""

    number: int
    retry: int
    learning_rate: float
    metric: float | None
    end_metric: float | None  # of an audited one, at the end of the epoch
    state: BranchState
    iterations: int
    samples: int
    seconds: float


@dataclass(frozen=True)
class BranchOfEpoch(Branch):
    """A branch and the epoch that it belongs to."""

    epoch_id: int
    label: str
    method: str
    trial: int
    epoch: int


@dataclass(frozen=True)
class EpochWithBranches(Epoch):
    """An epoch and the branches of its Pre-train, in the order tried."""

    branches: Sequence[Branch]


@dataclass(frozen=True)
class LrStep:
    """One epoch in the learning-rate history of a job: what its learning rate was chosen from, and what it led to."""

    trial_id: int
    label: str
    method: str
    trial: int
    epoch: int
    attempt: int
    phase: str
    learning_rate: float
    first_learning_rate: float
    last_learning_rate: float
    candidates: Sequence[float]  # learning rates of the branches, in the order tried
    val_accuracy: float
    val_loss: float | None
    test_accuracy: float
    samples: int
    seconds: float


@dataclass(frozen=True)
class EpochCost:
    """What a recorded epoch took and gave, as the comparison of a job's runs reads it; accuracies are from 0 to 1."""

    samples: int  # training samples of the epoch, search included
    val_accuracy: float
    test_accuracy: float
    evaluation_samples: int
    seconds: float
    recorded_at: datetime


@dataclass(frozen=True)
class EpochCostOfRun(EpochCost):
    """What an epoch took and came to, and the run and seed of its trial."""

    label: str
    seed: int


@dataclass(frozen=True)
class HistoryStep:
    """One epoch in the history of all jobs. Optimizer and batch are the trial's own, where a search chose them."""

    job_id: str
    model: str
    dataset: str
    optimizer: str
    global_batch_size: int
    label: str
    method: str
    trial: int
    seed: int
    epoch: int
    phase: str
    learning_rate: float
    first_learning_rate: float
    last_learning_rate: float
    val_accuracy: float
    test_accuracy: float
    samples: int


Values = Sequence[float | None]  # one a sampled step; None: not finite


@dataclass(frozen=True)
class LayerEpoch:
    """The telemetry of one layer in one epoch of a training: a value of each quantity for each of `steps`."""

    label: str
    method: str
    trial: int
    epoch: int
    attempt: int
    layer: str
    first_step: int
    every: int
    lwn: Values  # ||w||
    lgn: Values  # ||g||
    trust_ratio: Values | None

    @property
    def steps(self) -> Sequence[int]:
        """How many steps the training had taken at each sample, from 0."""
        return range(self.first_step, self.first_step + self.every * len(self.lwn), self.every)

    @property
    def lnr(self) -> Values:
        """The ratio ||w|| / ||g|| at each sample; None where the gradient is zero, or a norm was not finite."""
        return [w / g if w is not None and g else None for w, g in zip(self.lwn, self.lgn, strict=True)]


@dataclass(frozen=True)
class Event:
    """An event: what happened to a job, numbered 1, 2, 3, … without gaps."""

    number: int
    kind: str  # state | epoch | trial
    data: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class EventsHead:
    """How far the events of a job have come: the number of the last one, and the job's state by it."""

    id: str  # of the job
    last_event: int
    state: str


@dataclass(frozen=True)
class IdempotencyKey:
    """An idempotency key that came with a request, the fingerprint of its spec, and the job that it made."""

    key: str
    fingerprint: str
    job_id: str
    created_at: datetime


@dataclass(frozen=True)
class Leader:
    """The lease of the service that leads. Times are by the database's clock."""

    holder: str | None  # id of the service; None: nobody leads
    fence: int  # grows with every service that takes over
    url: str  # of its API
    cluster: str | None  # that it submits to, a ClusterId as text
    expires_at: datetime | None
    standby_seen_at: datetime | None  # when another service last looked whether it may take over


@dataclass(frozen=True)
class ApiKey:
    """An API key as it is kept: of the key itself there is a hash alone."""

    id: str  # the part of the key that is shown
    hash: str = field(repr=False)
    owner: str
    name: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class AttemptUsage:
    """When an attempt of an owner's job ran, and on what."""

    owner: str
    workers: int
    device: str  # as its spec has it: auto | cpu | cuda
    created_at: datetime
    ended_at: datetime | None
