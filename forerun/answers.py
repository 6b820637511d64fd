"""What the service answers with: plain dicts with these keys. A newer service may send more.

Times are ISO 8601 in UTC, durations seconds, accuracies shares from 0 to 1; a metric that was not finite is None.
"""

from typing import Any, Literal, NotRequired, TypedDict

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})  # the states that a job ends in


class JobError(TypedDict):
    code: str
    message: str


class Links(TypedDict):
    self: str
    epochs: str
    lr_history: str
    events: str
    ray_dashboard: str | None


class Job(TypedDict):
    """`learning_rate` and the accuracies are those of the last recorded epoch; None before the first."""

    id: str
    name: str
    experiment: str
    state: str
    error: JobError | None
    model: str
    dataset: str
    spec: dict[str, Any]
    attempt: int
    submission_id: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    epochs: int
    trials: int
    epochs_done: int
    learning_rate: float | None
    val_accuracy: float | None
    test_accuracy: float | None
    links: Links


class Branch(TypedDict):
    """One candidate learning rate of one Pre-train; `number` counts from 1 over all retries of the epoch."""

    number: int
    retry: int
    learning_rate: float
    metric: float | None
    end_metric: float | None
    state: str
    iterations: int
    samples: int
    seconds: float


class BranchOfEpoch(Branch):
    method: str
    trial: int
    epoch: int


class Audit(TypedDict):
    """What the epoch's losers would have come to."""

    branches: int
    samples: int
    regret: float
    rank_correlation: float | None


class EpochValues(TypedDict):
    """What is known of an epoch, wherever it comes from. `samples` and `iterations` count all branches and retries."""

    method: str
    trial: int
    epoch: int
    attempt: int
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
    audit: Audit | None
    source_trial: int | None
    source_epoch: int | None


class Epoch(EpochValues):
    recorded_at: str


class LrStep(TypedDict):
    """The learning rate of one epoch, what it was chosen from, and what it led to.

    After a lost attempt the next one goes on from a checkpoint; what the lost one recorded beyond that stands until it
    is replaced. `attempt` tells them apart.
    """

    method: str
    trial: int
    epoch: int
    attempt: int
    phase: str
    learning_rate: float
    first_learning_rate: float
    last_learning_rate: float
    candidates: list[float]
    val_accuracy: float
    val_loss: float | None
    test_accuracy: float
    samples: int
    samples_so_far: int
    seconds: float


class Schedule(TypedDict):
    """What `forerun.schedules.Replay` trains by."""

    job_id: str
    method: str
    trial: int
    iterations_per_epoch: int
    learning_rates: list[float]
    envelope: str
    warmup_epochs: int


class ReplayedEpoch(TypedDict):
    epoch: int
    recorded_learning_rate: float
    learning_rate: float | None
    regret: float | None


class SelectorReplay(TypedDict):
    job_id: str
    selector: dict[str, Any]
    agreement: float | None
    items: list[ReplayedEpoch]


class RunCost(TypedDict):
    method: str
    trainings: int
    samples: int
    iterations: float
    relative_to_sweep: float


class SearchArea(TypedDict):
    epoch: int
    low: float
    high: float


class Plan(TypedDict):
    train_samples: int
    iterations_per_epoch: int
    pretrain_iterations: int
    main_train_iterations: int
    runs: list[RunCost]
    search_area: list[SearchArea]


class ExperimentFacts(TypedDict):
    name: str
    paper: str
    figures: str
    description: str
    jobs: list[str]
    scales: list[str]


class ExperimentJobs(TypedDict):
    experiment: str
    items: list[Job]


class TrialResult(TypedDict):
    """One training of a method; None where no epoch is recorded yet. `test_accuracy` is that of the best epoch."""

    method: str
    trial: int
    seed: int
    config: dict[str, Any]
    state: str
    message: str | None
    epochs: int
    length: int
    samples: int
    lost_samples: int
    val_accuracy: float | None
    test_accuracy: float | None
    best_epoch: int | None
    learning_rate: float | None
    last_learning_rate: float | None


class Statistic(TypedDict):
    """Over seeds; `spread` is the sample standard deviation, None with one seed."""

    mean: float | None
    spread: float | None


class CurvePoint(TypedDict):
    samples: int
    val_accuracy: float
    test_accuracy: float


class SeedComparison(TypedDict):
    """What a method came to with one seed; samples are training samples."""

    seed: int
    trials: int
    val_accuracy: float
    test_accuracy: float
    samples: int
    lost_samples: int
    evaluation_samples: int
    seconds: float
    span_seconds: float | None
    samples_to_stpt: int | None
    relative_to_stpt: float | None
    curve: list[CurvePoint]


class ComparedRun(TypedDict):
    """What a method came to, over its seeds."""

    method: str
    trials: int
    seeds: int
    val_accuracy: Statistic
    test_accuracy: Statistic
    samples: Statistic
    lost_samples: Statistic
    evaluation_samples: Statistic
    seconds: Statistic
    span_seconds: Statistic
    samples_to_stpt: Statistic
    relative_to_stpt: Statistic
    by_seed: list[SeedComparison]


class StudyRow(TypedDict):
    """A variant of a study at a batch size, over the seeds whose trial has ended; `best` is selected by the test
    images."""

    variant: str
    global_batch_size: int
    seeds: int
    diverged: int
    final_test_accuracy: Statistic
    best_test_accuracy: Statistic


class RampStep(TypedDict):
    global_batch_size: int
    learning_rate: float
    momentum: float
    effective_learning_rate: float


class BatchRamp(TypedDict):
    """The largest batch before validation accuracy fell, in each phase of one seed's ramp, so far."""

    seed: int
    by_learning_rate: RampStep | None
    by_momentum: RampStep | None


class HistoryStep(TypedDict):
    """The learning rate of one epoch of one trial of one job."""

    job_id: str
    model: str
    dataset: str
    optimizer: str
    global_batch_size: int
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


class LayerEpoch(TypedDict):
    """One layer in one epoch: numbers at each of `steps`, which count over the training from 0; None: not finite."""

    method: str
    trial: int
    epoch: int
    attempt: int
    layer: str
    steps: list[int]
    lwn: list[float | None]
    lgn: list[float | None]
    lnr: list[float | None]
    trust_ratio: list[float | None] | None


class Evidence(TypedDict):
    job_id: str
    seed: int
    optimizer: str
    global_batch_size: int
    envelope: str
    learning_rate: float
    scaled_learning_rate: float
    val_accuracy: float
    test_accuracy: float


class Recommendation(TypedDict):
    """The learning rate to begin with, before the envelope; `schedule` is what the method `replay` takes."""

    model: str
    dataset: str
    optimizer: str
    global_batch_size: int
    learning_rate: float
    low: float
    high: float
    schedule: dict[str, Any]
    rule: str
    note: str
    evidence: list[Evidence]


class StateEvent(TypedDict):
    """The job moved to another state. A failure has a code and a message."""

    number: int
    kind: Literal["state"]
    created_at: str
    state: str
    attempt: NotRequired[int]
    code: NotRequired[str]
    message: NotRequired[str]


class TrialEvent(TypedDict):
    """A trial of a search began, changed its hyperparameters, or a trial ended before its last epoch."""

    number: int
    kind: Literal["trial"]
    created_at: str
    method: str
    trial: int
    seed: int
    config: dict[str, Any]
    epochs: int
    state: str
    message: str | None


class EpochEvent(EpochValues):
    """An epoch was recorded. After a lost attempt the next one may report an epoch again."""

    number: int
    kind: Literal["epoch"]
    created_at: str
    branches: list[Branch]


Event = StateEvent | TrialEvent | EpochEvent
