"""An epoch of short-term pre-training (STPT, Yamada et al.) while it is under way: what is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.engine.trainer import Measurement


@dataclass(frozen=True)
class Start:
    """What is known of the state that an epoch's branches start from."""

    metric: float | None = None  # that they are to improve on; None: not known
    untrained_loss: float | None = None  # that a branch must get below to be alive; None: every one is
    samples: int = 0  # that had to be evaluated to know it


@dataclass(frozen=True)
class MainTrained:
    """A Main-train and what it came to. Times are those of time.perf_counter, in seconds."""

    learning_rate: float  # before the job's lr_schedule
    training: Measurement
    validation: Measurement  # of the weights it ended with
    began: float
    ended: float


@dataclass
class Epoch:
    """An epoch with Pre-train, while it is under way."""

    number: int  # from 1
    alpha: int  # iterations of Pre-train
    beta: int  # iterations of Main-train
    candidates: Sequence[float]
    start: Start
    began: float  # by time.perf_counter, in seconds
    begins_anew: bool = False  # behind a race: the whole epoch is trained from its start
    undone: list[Measurement] = field(default_factory=list)  # Main-trains that were rolled back

    @property
    def searches(self) -> bool:
        """Whether the epoch has several candidates to choose from; a single one has been settled before."""
        return len(self.candidates) > 1

    def learning_rates(self, retry: int) -> list[float]:
        """The candidates of a retry, counted from 0: each retry divides them by 10, or a single one by 2."""
        return [candidate / (10 if self.searches else 2) ** retry for candidate in self.candidates]
