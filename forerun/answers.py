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
    epochs_done: int
    learning_rate: float | None
    val_accuracy: float | None
    test_accuracy: float | None
    links: Links


class JobPage(TypedDict):
    items: list[Job]
    next_cursor: str | None


class Branch(TypedDict):
    """One candidate learning rate of one Pre-train; `number` counts from 1 over all retries of the epoch."""

    number: int
    retry: int
    learning_rate: float
    metric: float | None
    state: str
    iterations: int
    samples: int
    seconds: float


class BranchOfEpoch(Branch):
    method: str
    trial: int
    epoch: int


class EpochValues(TypedDict):
    """What is known of an epoch, wherever it comes from. `samples` and `iterations` count all branches and retries."""

    method: str
    trial: int
    epoch: int
    attempt: int
    phase: str
    learning_rate: float
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float
    test_accuracy: float
    retries: int
    iterations: int
    samples: int
    evaluation_samples: int
    seconds: float
    pretrain_seconds: float
    main_train_seconds: float


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
    candidates: list[float]
    val_accuracy: float
    val_loss: float | None
    test_accuracy: float
    samples: int
    samples_so_far: int
    seconds: float


class StateEvent(TypedDict):
    """The job moved to another state. A failure has a code and a message."""

    number: int
    kind: Literal["state"]
    created_at: str
    state: str
    attempt: NotRequired[int]
    code: NotRequired[str]
    message: NotRequired[str]


class EpochEvent(EpochValues):
    """An epoch was recorded. After a lost attempt the next one may report an epoch again."""

    number: int
    kind: Literal["epoch"]
    created_at: str
    branches: list[Branch]


Event = StateEvent | EpochEvent
