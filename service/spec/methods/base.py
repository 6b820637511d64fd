"""What every method has in common: how many trainings it takes, what they cost, what is left of them to train by again.

A method is how the learning rate comes about: by search, by a schedule, by another job's history. Each is a run of a
job. Its module has its fields and these rules; `service.spec.methods` binds the modules by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from service.errors import FieldError
from service.spec.types import Frozen, Label, LearningRate

if TYPE_CHECKING:
    from service.spec.job import JobSpec

LrSchedule = Literal["constant", "linear", "cosine"]
MAX_EPOCHS = 100_000


class Schedule(Frozen):
    """Learning rates to train by: one for each epoch, and the lr_schedule that they are multiplied by over the whole
    training."""

    learning_rates: list[LearningRate] = Field(
        min_length=1, max_length=100_000, description="The learning rates of epochs 1, 2, 3, …"
    )
    lr_schedule: LrSchedule = Field("constant", description="What the learning rates are multiplied by.")
    warmup_epochs: int = Field(
        0, ge=0, description="How many of the first epochs lr_schedule and warmup_share leave as they are."
    )
    warmup_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the training over which the learning rate rises linearly to its full value.",
    )
    rescale_momentum: bool = Field(
        True, description="Whether a rise of the learning rate leaves what momentum carries over as large as it was."
    )


@dataclass(frozen=True)
class Facts:
    """What a job amounts to, for a method to count its work by. Samples are training samples."""

    candidates: Sequence[float]  # learning rates that a Pre-train over the job's lr_set tries first
    epoch_samples: int  # of one epoch of one training
    budget: int | None  # in samples, of one seed; None: no limit
    of_trial: "Callable[[JobSpec], Facts] | None" = None  # those of a trial whose spec is another


@dataclass(frozen=True)
class Work:
    """The trainings of one seed of a method, and the training samples that they take, search included."""

    trainings: int
    samples: int


@dataclass(frozen=True)
class Probe:
    """A trial of a search that must be possible: its spec, and how an error in that is told as one of the method's
    fields."""

    trial_spec: "Callable[[], JobSpec]"  # raises pydantic's ValidationError
    told: Callable[[FieldError], FieldError]
    alone: bool  # whether the first error tells it all


def _without_default(schema: dict[str, Any]) -> None:
    """A label's default is the method's name, which is another one in each schema."""
    schema.pop("default")


class MethodSpec(Frozen):
    """The base of the methods of a job, with rules that hold for each of them unless its module says otherwise."""

    is_search: ClassVar[bool] = False  # its trials are Ray Tune's, one process each
    has_budget: ClassVar[bool] = False  # the job's budget holds for it
    sets_budget: ClassVar[bool] = False  # the budgets of others may be relative to what it takes

    if TYPE_CHECKING:  # a field of each, told apart by its value
        name: str

    label: Label = Field(
        "",
        description="What its run is called in tables and figures and asked for by; the method's name where it is left "
        "out. A method that stands there several times needs labels that differ.",
        json_schema_extra=_without_default,
    )

    @model_validator(mode="before")
    @classmethod
    def _label(cls, value: Any) -> Any:
        """Without a label the method's name is one."""
        unnamed = isinstance(value, dict) and "label" not in value
        return value | {"label": cls.model_fields["name"].default} if unnamed else value

    def names(self) -> dict[str, str]:
        """What a user has named freely in the method, by its place there."""
        return {}

    def holds_budget(self, spec: "JobSpec") -> bool:
        """Whether the job's budget holds for the method in that job."""
        return self.has_budget

    def trainings(self, candidates: Sequence[float]) -> int:
        """The number of trainings with one seed; 0 for a search, which decides as it goes. `candidates` are the
        learning rates that a Pre-train over the job's lr_set tries first."""
        return 1

    def search_samples(self, spec: "JobSpec", epoch_samples: int) -> int:
        """The training samples that the shortest training of the method takes at most beside its epochs, to search by;
        `epoch_samples` are those of an epoch."""
        return 0

    def training_epochs(self, spec: "JobSpec", epoch_samples: int, budget: int | None) -> int:
        """The number of epochs that one training of the method takes at most. `epoch_samples` are the training samples
        of an epoch, `budget` those of one seed (None: no limit)."""
        return spec.epochs

    def work(self, spec: "JobSpec", facts: Facts) -> Work:
        """The trainings of the method with one seed, and the training samples that they take at most."""
        trainings = self.trainings(facts.candidates)
        epochs = self.training_epochs(spec, facts.epoch_samples, facts.budget if self.has_budget else None)
        training = self.search_samples(spec, facts.epoch_samples) + epochs * facts.epoch_samples
        return Work(trainings, trainings * training)

    def first_pretrain(self, spec: "JobSpec") -> tuple[int, float] | None:
        """Return (the epoch of the method's first Pre-train, the learning rate that this goes by); None where the
        method has no Pre-train."""
        return None

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that trains again as a trial of the method did whose epochs had those `learning_rates`; `config`
        are the hyperparameters that a search chose."""
        return Schedule(learning_rates=list(learning_rates))

    def searched_iterations(self, config: Mapping[str, Any]) -> int:
        """The iterations in the record of a trial's first epoch that the trial took before it, to search by; `config`
        is what the search chose."""
        return 0

    def trained_iterations(
        self, spec: "JobSpec", epoch: int, recorded: int, branches: Sequence[int], rollbacks: int
    ) -> int:
        """The iterations that made the model in `epoch`, whose record counts so many of them, those of its `branches`
        and of the Main-trains that were undone included: the chosen branch's, and those of one Main-train."""
        if not branches:
            return recorded
        return branches[0] + (recorded - sum(branches)) // (1 + rollbacks)

    @property
    def is_replayable(self) -> bool:
        """Whether one learning rate an epoch and an lr_schedule tell all that a training of the method did."""
        return True

    @property
    def replayed_job(self) -> str | None:
        """The id of the job whose schedule the method is still to be given; None where it needs none."""
        return None

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """What is wrong with the method in the job of that spec; `field` is its place in the spec, as `methods[0]`."""
        return []

    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> "Iterator[FieldError | Probe]":
        """What is wrong with the method as a search, and which trials must be possible. `field` is its place in the
        spec; `train_samples` are those that are not held out, None where they are not known."""
        yield from ()


class WholeBudgetMethod(MethodSpec):
    """The base of methods with one training that takes the whole budget."""

    has_budget: ClassVar[bool] = True

    def training_epochs(self, spec: "JobSpec", epoch_samples: int, budget: int | None) -> int:
        """The number of whole epochs that the budget has room for beside a search, at least one; without a budget the
        job's. `epoch_samples` and `budget` are in training samples."""
        if budget is None:
            return spec.epochs
        return min(MAX_EPOCHS, max(1, (budget - self.search_samples(spec, epoch_samples)) // epoch_samples))
