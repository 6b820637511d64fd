"""What all searches have in common: where hyperparameters are drawn from, how many trials there are, and which specs
must be possible. Their trials are run by Ray Tune, one process each, in `workers.tune`."""

import itertools
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from service.errors import FieldError
from service.spec.methods.base import Facts, LrSchedule, MethodSpec, Probe, Schedule, Work
from service.spec.types import Frozen

if TYPE_CHECKING:
    from service.spec.job import JobSpec

Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
IntegerBounds = Annotated[list[Annotated[int, Field(ge=-(2**31), lt=2**31)]], Field(min_length=2, max_length=2)]
Choices = Annotated[list[Any], Field(min_length=1, max_length=64)]


class Distribution(Frozen):
    """The distribution that a hyperparameter is drawn from, under Ray Tune's name for it; exactly one of these."""

    uniform: Bounds | None = Field(None, description="[low, high], uniform.")
    loguniform: Bounds | None = Field(None, description="[low, high], both above 0; uniform in the logarithm.")
    randint: IntegerBounds | None = Field(None, description="[low, high), integers.")
    lograndint: IntegerBounds | None = Field(
        None, description="[low, high), integers, both above 0; uniform in the logarithm."
    )
    choice: Choices | None = Field(None, description="One of these values.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in type(self).model_fields if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(type(self).model_fields)}; it has {len(given)}")
        if given[0] == "choice":
            return self
        low, high = getattr(self, given[0])
        if not low < high:
            raise ValueError(f"must be [low, high] with low below high, not [{low:g}, {high:g}]")
        if given[0].startswith("log") and low <= 0:
            raise ValueError(f"is uniform in the logarithm, so low must be above 0, not {low:g}")
        return self

    @property
    def kind(self) -> str:
        """The name of the distribution that is given."""
        return next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)

    @property
    def extremes(self) -> list[Any]:
        """The smallest and the largest value that can be drawn, or all of the choices."""
        if self.choice is not None:
            return self.choice
        low, high = getattr(self, self.kind)
        return [low, high - 1] if isinstance(high, int) and self.kind.endswith("randint") else [low, high]


SearchKey = Annotated[str, StringConstraints(max_length=50)]
GpusPerTrial = Annotated[float, Field(gt=0, le=1, description="On GPUs: less than 1 puts several trials on one.")]
Config = Mapping[str, Any]

MAX_TRIALS = 10_000  # of one seed that may be asked for, and points of a grid

# What may be searched, and its place in a spec; optimizer.KEY besides.
KEYS = {
    "learning_rate": "initial_learning_rate",
    "optimizer": "optimizer",
    "global_batch_size": "global_batch_size",
    "lr_schedule": "lr_schedule",
}


class SearchMethod(MethodSpec, ABC):
    """The base of methods whose trials Ray Tune runs; each of them has a field `gpus_per_trial`."""

    is_search: ClassVar[bool] = True
    if TYPE_CHECKING:
        gpus_per_trial: GpusPerTrial

    def trainings(self, candidates: Sequence[float]) -> int:
        """Return 0: how many trainings there are is found out as the search goes on."""
        return 0

    def work(self, spec: "JobSpec", facts: Facts) -> Work:
        """The trials of one seed, and the training samples that they take when none is stopped, within the budget."""
        budget = facts.budget if self.has_budget else None
        trials = self.most_trials(spec, facts)
        samples = trials * self.training_epochs(spec, facts.epoch_samples, budget) * facts.epoch_samples
        if budget is not None:
            samples = min(samples, budget // facts.epoch_samples * facts.epoch_samples)
        return Work(trials, samples)

    @abstractmethod
    def space(self, spec: "JobSpec", candidates: Sequence[float]) -> dict[str, Distribution]:
        """The distribution that each hyperparameter is drawn from, by its name; `candidates` are the learning rates
        that a Pre-train over the job's lr_set tries first."""

    @abstractmethod
    def most_trials(self, spec: "JobSpec", facts: Facts) -> int:
        """The number of trials that one seed of the search may begin."""

    def points(self, spec: "JobSpec", facts: Facts) -> Iterable[dict[str, Any]] | None:
        """The hyperparameters of each trial of one seed, by name, where they are known beforehand; else None. They are
        made as they are asked for, and may be more than there are trials: the first ones count."""
        return None

    def trial_spec(self, spec: "JobSpec", config: Config, *, seed: int, epochs: int) -> "JobSpec":
        """The job's spec with a trial's hyperparameters in their places. Raises pydantic's ValidationError where they
        are not possible.

        It has no telemetry: Tune writes every report of every trial to disk each time that anything happens.
        """
        document: dict[str, Any] = dict(spec)  # parts of it as they are: what has been validated is not once more
        document |= {"preset": None, "seed": seed, "epochs": epochs, "methods": ["fixed"]}
        document |= {"budget": None, "seeds": 1, "telemetry": None}
        return type(spec).model_validate(self.trial_document(document, config))

    def probe(self, spec: "JobSpec", config: Config, told: Callable[[FieldError], FieldError], *, alone: bool) -> Probe:
        """A probe whether a trial with these hyperparameters is possible. `told` makes an error in the trial's spec one
        of the method's fields; `alone`: the first error tells it all."""
        return Probe(partial(self.trial_spec, spec, config, seed=spec.seed, epochs=spec.epochs), told, alone)

    def trial_document(self, document: dict[str, Any], config: Config) -> dict[str, Any]:
        """The `document` of the job's spec, with a trial's hyperparameters in their places."""
        return with_hyperparameters(document, config)

    def reported(self, config: Config, spec: "JobSpec") -> dict[str, Any]:
        """The hyperparameters of a trial as its record has them, by name."""
        return dict(config)

    @abstractmethod
    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> Iterator[FieldError | Probe]:
        """What is wrong with the search, and which trials must be possible. `field` is its place in the spec;
        `train_samples` are those that are not held out, None where they are not known."""


class TunedMethod(SearchMethod):
    """The base of searches of a space within the budget. Their trials train like those of `sweep`, as many at a time as
    fit into the cluster."""

    has_budget: ClassVar[bool] = True

    search_space: dict[SearchKey, Distribution] | None = Field(
        None,
        max_length=16,
        description="By key: learning_rate, optimizer, optimizer.momentum, optimizer.weight_decay, global_batch_size, "
        "lr_schedule. null: the learning rate, log-uniform over what lr_set tries first.",
    )
    lr_schedule: LrSchedule | None = Field(
        None, description="How learning rates fall over a training; null: the job's `lr_schedule`."
    )
    max_trials: int | None = Field(
        None,
        ge=1,
        le=MAX_TRIALS,
        description="Trials of one seed at most; null: as many as the budget has room for, or without a budget as many "
        "as lr_set has first candidates.",
    )
    gpus_per_trial: GpusPerTrial = 1.0

    def space(self, spec: "JobSpec", candidates: Sequence[float]) -> dict[str, Distribution]:
        """The search space that is asked for; else that of the learning rate alone, log-uniform from the smallest to
        the largest of the `candidates`."""
        if self.search_space is not None:
            return self.search_space
        low, high = min(candidates), max(candidates)
        bounds = [low, high] if low < high else [low / 10, high * 10]
        return {"learning_rate": Distribution(loguniform=bounds)}

    def most_trials(self, spec: "JobSpec", facts: Facts) -> int:
        """The number of trials of one seed: what is asked for, or what the budget has room for with an epoch each, or
        else the number of candidates."""
        if self.max_trials is not None:
            return self.max_trials
        if facts.budget is None:
            return len(facts.candidates)
        return max(1, facts.budget // facts.epoch_samples)

    def trial_document(self, document: dict[str, Any], config: Config) -> dict[str, Any]:
        """The `document` of the job's spec with a trial's hyperparameters in their places, and with the search's own
        lr_schedule, where it has one."""
        own = {} if self.lr_schedule is None else {"lr_schedule": self.lr_schedule}
        return with_hyperparameters(document | own, config)

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that trains again as a trial did: its learning rates under the lr_schedule that it had."""
        lr_schedule = config.get("lr_schedule", self.lr_schedule or spec.lr_schedule)
        return Schedule(learning_rates=list(learning_rates), lr_schedule=lr_schedule)

    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> Iterator[FieldError | Probe]:
        """Probes of each value at the ends of the search space, and errors of keys that cannot be searched."""
        for key, distribution in (self.search_space or {}).items():
            place = f"{field}.search_space.{key}"
            head, _, option = key.partition(".")
            if head not in KEYS or (option and head != "optimizer"):
                yield FieldError(place, key, f"cannot be searched; use {', '.join(KEYS)} and optimizer.OPTION")
            elif key == "global_batch_size" and distribution.choice is None:
                message = "must be a choice: not every number is a multiple of workers; list the batches to try"
                yield FieldError(place, distribution.kind, message)
            else:
                for value in distribution.extremes:
                    yield self.probe(spec, {key: value}, _told_of(place, value), alone=True)


def _told_of(place: str, value: Any) -> Callable[[FieldError], FieldError]:
    return lambda error: FieldError(place, value, error.message)


def with_hyperparameters(document: dict[str, Any], config: Config) -> dict[str, Any]:
    """The document of a spec with each hyperparameter in its place; an optimizer is put in before its options."""
    document = dict(document)
    for key in sorted(config, key=lambda key: key.count(".")):
        head, _, option = key.partition(".")
        if not option:
            document[KEYS[head]] = config[key]
        else:
            named = document[head]
            document[head] = ({"name": named} if isinstance(named, str) else dict(named)) | {option: config[key]}
    return document


@dataclass(frozen=True)
class Grid:
    """The points of a grid, as hyperparameters by name: one for each combination of a value of every axis. They are
    made as they are asked for; `size` is how many there are."""

    axes: Mapping[str, Sequence[Any]]

    @property
    def size(self) -> int:
        """The number of points."""
        return math.prod(map(len, self.axes.values()))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.axes, point, strict=True)) for point in itertools.product(*self.axes.values()))


def grid(space: Mapping[str, Distribution], trials: int) -> Grid:
    """The grid over a search space: one point for each combination of choices; ranges are divided evenly, by their
    middles, as often as there is room for `trials`."""
    ranges = sum(distribution.choice is None for distribution in space.values())
    choices = combinations(space)
    steps = bisect_right(range(1, trials // choices + 1), trials, key=lambda steps: steps**ranges * choices)
    return Grid({key: _axis(distribution, max(1, steps)) for key, distribution in space.items()})


def combinations(space: Mapping[str, Distribution]) -> int:
    """The number of combinations of a search space's choices; ranges do not count."""
    return math.prod(len(distribution.choice) for distribution in space.values() if distribution.choice is not None)


def _axis(distribution: Distribution, steps: int) -> Sequence[Any]:
    if distribution.choice is not None:
        return distribution.choice
    low, high = distribution.extremes
    shares = [(step + 0.5) / steps for step in range(steps)]
    if distribution.kind.startswith("log"):
        values = [low * (high / low) ** share for share in shares]
    else:
        values = [low + (high - low) * share for share in shares]
    return list(dict.fromkeys(map(round, values))) if distribution.kind.endswith("randint") else values
