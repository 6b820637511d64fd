"""The batch ramp (Signer & Barbier, section IV, after Smith & Le 2017, arXiv 1710.06451): its fields and rules."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.methods.base import Facts, Probe, Schedule
from service.spec.methods.search import Distribution, GpusPerTrial, SearchMethod
from service.spec.scaling import scaled_momentum
from service.spec.types import MAX_BATCH

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class RampMethod(SearchMethod):
    """The batch ramp, which finds how large the batch may become (Signer & Barbier, "How to achieve large batch size
    training of a DNN with SGD by adjusting hyperparameters?", section IV): from `global_batch_size` it is doubled, the
    learning rate following by the square root, until validation accuracy falls; then from the last good one with the
    momentum following. It is one training after another, each in one process."""

    name: Literal["batch-ramp"] = Field("batch-ramp", description="Name of this method.")
    tolerance: float = Field(
        0.005, ge=0, le=1, description="Validation accuracy falls when it ends so much below the best before."
    )
    gpus_per_trial: GpusPerTrial = 1.0

    def space(self, spec: "JobSpec", candidates: Sequence[float]) -> dict[str, Distribution]:
        """The bounds that the ramp's hyperparameters stay within, by name; which values it tries is decided by
        service.algorithms.batch_ramp."""
        batch, learning_rate = spec.global_batch_size, spec.initial_learning_rate
        momentum = getattr(spec.optimizer, "momentum", 0.0)
        most = 2 ** (math.log2(MAX_BATCH / batch) / 2)
        return {
            "global_batch_size": Distribution(lograndint=[batch, MAX_BATCH]),
            "learning_rate": Distribution(loguniform=[learning_rate, learning_rate * most]),
            "optimizer.momentum": Distribution(uniform=[momentum, scaled_momentum(momentum, most)]),
        }

    def most_trials(self, spec: "JobSpec", facts: Facts) -> int:
        """The number of trials at most: one whose accuracy falls in each phase, and one for each doubling of the batch
        up to the training set."""
        return 2 + int(math.log2(max(1, facts.epoch_samples // spec.global_batch_size)))

    def schedule_of(self, learning_rates: Sequence[float], spec: "JobSpec", config: Mapping[str, Any]) -> Schedule:
        """The schedule that trains again as a trial of the ramp did: its learning rates under the job's lr_schedule."""
        return Schedule(learning_rates=list(learning_rates), lr_schedule=spec.lr_schedule)

    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> Iterator[FieldError | Probe]:
        """Errors where the optimizer has no momentum, or the training set no room to double the batch once."""
        if getattr(spec.optimizer, "momentum", None) is None:
            message = "has no momentum, which batch-ramp scales in its second phase; take sgd, lars or tvlars"
            yield FieldError("optimizer", spec.optimizer.name, message)
        if 2 * spec.global_batch_size > (MAX_BATCH if train_samples is None else train_samples):
            message = "batch-ramp cannot double it within the training set; lower it"
            yield FieldError("global_batch_size", spec.global_batch_size, message)
