"""Trainings without search, in which the learning rates of an epoch are a function of its number and of what came
before."""

from collections.abc import Callable, Sequence

from service.algorithms.lr_schedules import schedule_learning_rates
from service.spec.job import JobSpec
from service.spec.methods.base import LrSchedule, MethodSpec, Schedule
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.engine.trainer import Trainer
from workers.methods.base import TrainedEpoch, Training

RatesOf = Callable[[int, Sequence[float]], tuple[float, list[float]]]


class Scheduled(Training):
    """A training whose learning rates are a function of what came before.

    `rates_of`, called with the number of an epoch and the validation accuracies so far, returns the epoch's learning
    rate and that of each iteration. `counts_in_optimizer`, `rescales_momentum` and `remedy` are those of `Training`.
    """

    def __init__(
        self,
        trainer: Trainer,
        label: str,
        trial: int,
        rates_of: RatesOf,
        *,
        counts_in_optimizer: bool = False,
        rescales_momentum: bool = False,
        remedy: str = Training.remedy,
    ) -> None:
        super().__init__(trainer, trial)
        self.label, self.remedy, self._rates_of = label, remedy, rates_of
        self._counts_in_optimizer, self._rescales_momentum = counts_in_optimizer, rescales_momentum

    @property
    def counts_in_optimizer(self) -> bool:
        return self._counts_in_optimizer

    @property
    def rescales_momentum(self) -> bool:
        return self._rescales_momentum

    def train_epoch(self, epoch: int) -> TrainedEpoch:
        learning_rate, applied = self._rates_of(epoch, self.position.val_accuracies)
        self.ease_momentum(applied[0])
        return self.plain_epoch(epoch, "scheduled", learning_rate, applied)


def constant(
    trainer: Trainer,
    label: str,
    trial: int,
    learning_rate: float,
    lr_schedule: LrSchedule,
    *,
    counts_in_optimizer: bool = False,
    remedy: str = Training.remedy,
) -> Scheduled:
    """A training by one learning rate for its whole length, under an lr_schedule."""
    schedule = Schedule(learning_rates=[learning_rate] * trainer.spec.epochs, lr_schedule=lr_schedule)
    rates_of = follow(schedule, trainer)
    return Scheduled(trainer, label, trial, rates_of, counts_in_optimizer=counts_in_optimizer, remedy=remedy)


def build_trial(method: MethodSpec, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Build a trial of a search, whose hyperparameters stand in `spec`: a training by one learning rate under an
    lr_schedule."""
    return constant(build_trainer(spec, data, workers), method.label, 1, spec.initial_learning_rate, spec.lr_schedule)


def follow(schedule: Schedule, trainer: Trainer) -> RatesOf:
    """The function `rates_of` of a `Scheduled` training that follows a schedule, epoch by epoch."""
    iterations = trainer.iterations

    def rates_of(epoch: int, _: Sequence[float]) -> tuple[float, list[float]]:
        applied = schedule_learning_rates(schedule, epoch=epoch, iterations=iterations)
        return schedule.learning_rates[epoch - 1], applied

    return rates_of
