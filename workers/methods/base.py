"""What every method shares: where a training stands, and the end of an epoch with its evaluation, its record and the
next position."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from service.algorithms.lr_schedules import epoch_lr_factors
from service.errors import Diverged
from service.wire.worker import AuditRecord, BranchRecord, EpochRecord
from workers.checkpoint import Position
from workers.engine.optimizer import options_of, set_options
from workers.engine.trainer import Measurement, Trainer
from workers.optimizers.build import scale_momentum


@dataclass(frozen=True)
class TrainedEpoch:
    """What the training of an epoch has come to. Times are those of time.perf_counter, in seconds."""

    phase: Literal["warmup", "stpt", "scheduled"]
    learning_rate: float  # before lr_schedule
    applied: Sequence[float]  # learning rates of the iterations that made the model, in order
    training: Measurement  # of those iterations
    validation: Measurement  # of the weights they ended with
    began: float
    pretrained: float
    trained: float
    iterations: int  # branches and undone Main-trains included
    samples: int
    branches: Sequence[BranchRecord] = ()
    rollbacks: int = 0
    audit: AuditRecord | None = None
    evaluation_samples: int = 0  # but for the one validation and test that every epoch ends with
    selector_state: dict[str, Any] = field(default_factory=dict)
    diverged: str | None = None  # why the training ends here


class Training(ABC):
    """One training of one model. Every worker of the world runs one of these, and they stay in step."""

    label: str
    remedy: str = "a smaller learning rate"  # what to choose where it diverges

    def __init__(self, trainer: Trainer, trial: int = 1) -> None:
        self.trainer, self.spec, self.world, self.trial = trainer, trainer.spec, trainer.workers.world, trial
        self._samples_checked = trainer.samples_seen
        self.position = Position(learning_rate=self.spec.initial_learning_rate)
        self.config: dict[str, Any] = {}  # hyperparameters that a search within the training has chosen

    @abstractmethod
    def train_epoch(self, epoch: int) -> TrainedEpoch:
        """Train epoch number `epoch` from the position. Raises Diverged where the epoch cannot be trained to its
        end."""

    def epochs(self) -> Iterator[EpochRecord]:
        """Train from the position to the end; yield each epoch's record, the same on every worker.

        Raises Diverged when the training does, after it has yielded the record of that epoch where there is one.
        """
        for epoch in range(self.position.epochs + 1, self.spec.epochs + 1):
            trained = self.train_epoch(epoch)
            record = self._record(epoch, trained)
            self._check_samples(record)
            if trained.diverged is not None:
                yield record
                raise Diverged(trained.diverged)
            self.position = self.position.model_copy(
                update={
                    "epochs": epoch,
                    "samples": self.position.samples + record.samples,
                    # a warm-up does not touch the learning rate that the first Pre-train starts from
                    "learning_rate": self.position.learning_rate if trained.phase == "warmup" else record.learning_rate,
                    "last_learning_rate": record.last_learning_rate,
                    "val_loss": record.val_loss,
                    "val_accuracies": [*self.position.val_accuracies, record.val_accuracy],
                    "selector_state": trained.selector_state,
                    "optimizer": options_of(self.trainer.optimizer) if self.counts_in_optimizer else [],
                }
            )
            yield record

    @property
    def rescales_momentum(self) -> bool:
        """Whether the momentum of the optimizer is scaled down where the learning rate rises, so that the steps that it
        carries over do not grow."""
        return False

    @property
    def counts_in_optimizer(self) -> bool:
        """Whether the optimizer keeps more than tensors: numbers that a checkpoint must have."""
        return False

    def go_on_from(self, position: Position) -> None:
        """Continue behind `position`; the trainer's tensors are the caller's to load."""
        self.position = position
        if position.optimizer:
            set_options(self.trainer.optimizer, position.optimizer)

    # --- for the methods -----------------------------------------------------------------------------

    def lr_factors(self, epoch: int, warmup_share: float = 0.0) -> list[float]:
        """The factors by which the job's lr_schedule multiplies a learning rate, one for each iteration of the epoch,
        with a linear warm-up over the first `warmup_share` of the training."""
        return epoch_lr_factors(
            self.spec.lr_schedule,
            epoch=epoch,
            epochs=self.spec.epochs,
            iterations=self.trainer.iterations,
            warmup_share=warmup_share,
        )

    def plain_epoch(
        self, epoch: int, phase: Literal["warmup", "scheduled"], learning_rate: float, applied: Sequence[float]
    ) -> TrainedEpoch:
        """Train an epoch without search: an iteration by all workers at each of the learning rates `applied`. Where the
        loss becomes non-finite, `diverged` of what it returns says so."""
        began = time.perf_counter()
        training = self.main_train(epoch, range(len(applied)), applied)
        return self.end_epoch(epoch, phase, learning_rate, applied, training, began)

    def end_epoch(
        self,
        epoch: int,
        phase: Literal["warmup", "scheduled"],
        learning_rate: float,
        applied: Sequence[float],
        training: Measurement,
        began: float,
    ) -> TrainedEpoch:
        """Judge an epoch without search whose iterations, at the learning rates `applied`, are done and measured
        `training`; it `began` at that time.perf_counter, in seconds. Where the loss has become non-finite, `diverged`
        of what it returns says so."""
        trained = time.perf_counter()
        self.trainer.refresh_statistics(epoch, self.world)
        validation = self.trainer.evaluate(self.trainer.data.validation, self.world)
        diverged = None
        if not (training.is_finite and validation.is_finite):  # the latter: after the last step
            advice = "a smaller warmup.learning_rate" if phase == "warmup" else self.remedy
            where = "in the warm-up" if phase == "warmup" else f"of {self.label}, trial {self.trial}"
            diverged = (
                f"epoch {epoch}: the loss became non-finite at learning rate {learning_rate:g} {where}; choose {advice}"
            )
        return TrainedEpoch(
            phase=phase,
            learning_rate=learning_rate,
            applied=applied,
            training=training,
            validation=validation,
            began=began,
            pretrained=began,
            trained=trained,
            iterations=len(applied),
            samples=training.samples,
            evaluation_samples=self.trainer.refreshing_samples,
            diverged=diverged,
        )

    def ease_momentum(self, learning_rate: float) -> None:
        """Before an iteration at `learning_rate`, scale the momentum down where the learning rate has risen, so that
        the step that it carries over does not grow. Does nothing unless `rescales_momentum`."""
        last = self.position.last_learning_rate
        if self.rescales_momentum and last is not None and learning_rate > last:
            scale_momentum(self.trainer.optimizer, last / learning_rate)

    def main_train(self, epoch: int, iterations: range, learning_rates: Sequence[float]) -> Measurement:
        """Train `iterations` of `epoch` by all workers, synchronously data-parallel, each at its learning rate."""
        return self.trainer.train(epoch, iterations, learning_rates, self.world, self.spec.workers)

    def _check_samples(self, record: EpochRecord) -> None:
        """Assert that the cost that a record states is what the training loop has counted, to the last sample."""
        seen = torch.tensor([self.trainer.samples_seen - self._samples_checked], device=self.trainer.workers.device)
        self._samples_checked = self.trainer.samples_seen
        audited = record.audit.samples if record.audit else 0
        assert int(self.world.sum_(seen)) == record.samples + audited, f"epoch {record.epoch}: {record.samples} samples"

    def _record(self, epoch: int, trained: TrainedEpoch) -> EpochRecord:
        test = self.trainer.test(self.world)
        judging = sum(
            self.trainer.evaluation_samples(s) for s in (self.trainer.data.validation, self.trainer.data.test)
        )
        return EpochRecord(
            label=self.label,
            trial=self.trial,
            epoch=epoch,
            phase=trained.phase,
            learning_rate=trained.learning_rate,
            first_learning_rate=trained.applied[0],
            last_learning_rate=trained.applied[-1],
            train_loss=finite(trained.training.loss),
            val_loss=finite(trained.validation.loss),
            # a net that has diverged answers at random; 0 tells a search what it is worth
            val_accuracy=trained.validation.accuracy if trained.diverged is None else 0.0,
            test_accuracy=test.accuracy if trained.diverged is None and math.isfinite(test.loss) else 0.0,
            retries=max((branch.retry for branch in trained.branches), default=0),
            rollbacks=trained.rollbacks,
            iterations=trained.iterations,
            samples=trained.samples,
            evaluation_samples=trained.evaluation_samples + judging,
            seconds=time.perf_counter() - trained.began,
            pretrain_seconds=trained.pretrained - trained.began,
            main_train_seconds=trained.trained - trained.pretrained,
            branches=list(trained.branches),
            audit=trained.audit,
            layers=self.trainer.telemetry.record(epoch) if self.trainer.telemetry is not None else None,
        )


def finite(value: float | None) -> float | None:
    """The number as records have it: None in place of one that is not finite."""
    return value if value is not None and math.isfinite(value) else None
