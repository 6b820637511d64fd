"""AutoLRS (Jin et al. 2021, arXiv 2105.10762): its fields, its stages, and what they cost."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.methods.base import MAX_EPOCHS, Facts, Probe, Schedule, WholeBudgetMethod, Work
from service.spec.types import MAX_LEARNING_RATE, LearningRate

if TYPE_CHECKING:
    from service.spec.job import JobSpec

TAU, GROWTH = 1000, 8  # iterations of the first stage, and how much longer the longest one is (8000)
SHARE = 10  # a trial is a tenth of its stage
LEAST_TRIAL = 4  # iterations: an exponential has three parameters


@dataclass(frozen=True)
class LrStage:
    """A stage of a training: whole epochs at one learning rate, which trials of `trial_iterations` (tau') iterations
    from the stage's start have found. `by_validation`: whether they are forecast from validation losses in place of
    training losses."""

    first_epoch: int  # from 1
    epochs: int
    trial_iterations: int
    by_validation: bool


class AutoLrsMethod(WholeBudgetMethod):
    """AutoLRS (Jin et al. 2021, arXiv 2105.10762): one training that falls into stages, each at a constant learning
    rate of its own. At its start Bayesian optimisation proposes learning rates one after another; each is tried for a
    few iterations from the same state, an exponential fitted to the losses forecasts the loss at the stage's end, and
    the stage is trained at the learning rate with the least. Trials and training take the whole budget."""

    name: Literal["autolrs"] = Field("autolrs", description="Name of this method.")
    search_interval: list[LearningRate] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Lowest and highest learning rate that may be tried; null: from the smallest to the largest that "
        "`lr_set` tries first.",
    )
    trials: int = Field(10, ge=1, le=64, description="Learning rates tried at the start of each stage.")
    stage_iterations: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Iterations of the first stage, rounded to whole epochs, at least one; each stage is twice as long "
        "as the one before. null: 1000, or half of the training where that is less.",
    )
    max_stage_iterations: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Iterations of the longest stage, rounded to whole epochs; null: eight times the first one.",
    )
    trial_iterations: int | None = Field(
        None,
        ge=LEAST_TRIAL,
        le=100_000,
        description="Iterations of each trial; null: a tenth of its stage, at least 4.",
    )
    kappa: float = Field(
        1e6,
        ge=0,
        le=1e9,
        description="The next learning rate is where the forecast less kappa times its standard deviation is least: "
        "0 goes where it is best, a large one where least is known.",
    )

    # --- what it comes to in a job ---------------------------------------------------------------------

    def interval(self, candidates: Sequence[float]) -> tuple[float, float]:
        """The lowest and the highest learning rate that may be tried; `candidates` are those that a Pre-train over the
        job's lr_set tries first, around which the interval spans two decades where there is only one."""
        low, high = self.search_interval or (min(candidates), max(candidates))
        return (low, high) if low < high else (low / 10, min(high * 10, MAX_LEARNING_RATE))

    def stages(self, epochs: int, iterations: int) -> list[LrStage]:
        """The stages of a training of so many epochs, each of so many `iterations`; the last one is cut off where the
        training ends, and its trials are as much shorter. Trials go by validation losses once a longest stage is over,
        as in the authors' code."""
        stages: list[LrStage] = []
        first_epoch = 1
        longest = self._longest(epochs, iterations)
        for length, count in self._lengths(epochs, iterations):
            for _ in range(count):
                by_validation = bool(stages) and stages[-1].epochs >= longest
                stages.append(LrStage(first_epoch, length, self._tried(length, iterations), by_validation))
                first_epoch += length
        return stages

    def _first(self, epochs: int, iterations: int) -> int:
        tau = self.stage_iterations or min(TAU, epochs * iterations / 2)
        return max(1, round(tau / iterations))

    def _longest(self, epochs: int, iterations: int) -> int:
        first = self._first(epochs, iterations)
        if self.max_stage_iterations is None:
            return GROWTH * first
        return max(first, round(self.max_stage_iterations / iterations))

    def _lengths(self, epochs: int, iterations: int) -> list[tuple[int, int]]:
        """The stages as (epochs of a stage, how many stages of this length follow one another)."""
        lengths, longest = list[tuple[int, int]](), self._longest(epochs, iterations)
        length, left = self._first(epochs, iterations), epochs
        while length < min(longest, left):
            lengths.append((length, 1))
            left -= length
            length *= 2
        whole, rest = divmod(left, longest)
        return [*lengths, *([(longest, whole)] if whole else []), *([(rest, 1)] if rest else [])]

    def _tried(self, epochs: int, iterations: int) -> int:
        """The iterations of a trial for a stage of so many epochs."""
        return self.trial_iterations or max(LEAST_TRIAL, round(epochs * iterations / SHARE))

    def training_samples(self, spec: "JobSpec", epoch_samples: int, epochs: int) -> int:
        """The training samples of a training of so many epochs, trials included; `epoch_samples` are those of one."""
        iterations = epoch_samples // spec.global_batch_size
        stages = self._lengths(epochs, iterations)
        tried = self.trials * sum(count * self._tried(length, iterations) for length, count in stages)
        return epochs * epoch_samples + tried * spec.global_batch_size

    # --- the rules of every method ---------------------------------------------------------------------

    def search_samples(self, spec: "JobSpec", epoch_samples: int) -> int:
        """The training samples of the trials before the only stage of the shortest training, which is one epoch."""
        return self.training_samples(spec, epoch_samples, 1) - epoch_samples

    def training_epochs(self, spec: "JobSpec", epoch_samples: int, budget: int | None) -> int:
        """The number of whole epochs that the budget has room for with the trials of their stages, at least one;
        without a budget the job's. `epoch_samples` and `budget` are in training samples."""
        if budget is None:
            return spec.epochs
        lengths = range(1, min(MAX_EPOCHS, budget // epoch_samples) + 1)
        return max(1, bisect_right(lengths, budget, key=lambda n: self.training_samples(spec, epoch_samples, n)))

    def work(self, spec: "JobSpec", facts: Facts) -> Work:
        """One training, and the training samples that it takes, trials included."""
        epochs = self.training_epochs(spec, facts.epoch_samples, facts.budget)
        return Work(1, self.training_samples(spec, facts.epoch_samples, epochs))

    def trained_iterations(
        self, spec: "JobSpec", epoch: int, recorded: int, branches: Sequence[int], rollbacks: int
    ) -> int:
        """The iterations of an epoch behind its trials, none of which is gone on with."""
        return recorded - sum(branches)

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that trains again as a training did: the learning rate of each epoch, as it stands."""
        return Schedule(learning_rates=list(learning_rates), rescale_momentum=False)

    def errors(self, spec: "JobSpec", field: str) -> list[FieldError]:
        """An error where the interval does not rise, and where the longest stage would be shorter than the first."""
        errors = []
        if self.search_interval is not None and self.search_interval[0] >= self.search_interval[1]:
            message = "must rise from the lowest learning rate to the highest; give the lower one first"
            errors.append(FieldError(f"{field}.search_interval", self.search_interval, message))
        first, longest = self.stage_iterations or 0, self.max_stage_iterations
        if longest is not None and longest < first:
            message = f"less than stage_iterations ({first}), with which stages begin; raise it, or lower that"
            errors.append(FieldError(f"{field}.max_stage_iterations", longest, message))
        return errors

    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> Iterator[FieldError | Probe]:
        """An error where a trial is longer than the shortest stage, which is an epoch, if it is known how long that
        is."""
        iterations = 0 if train_samples is None else train_samples // spec.global_batch_size
        tried = self.trial_iterations or LEAST_TRIAL
        if not iterations or tried <= iterations:  # not known, or less than a batch, which is told of the batch
            return
        facts = f"{train_samples} samples / batch {spec.global_batch_size}"
        least = f"a trial takes {LEAST_TRIAL} iterations at least, and a stage may be an epoch"
        remedy = "choose a smaller batch" if iterations < LEAST_TRIAL else "lower it"
        message = f"{least}, which has {iterations} ({facts}); {remedy}"
        yield FieldError(f"{field}.trial_iterations", tried, message)
