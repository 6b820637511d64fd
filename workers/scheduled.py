"""Trainings without search: the trials of a sweep, the reference run, the replay of a job's schedule."""

from collections.abc import Callable, Sequence

from service.lr_sets import sweep_learning_rates
from service.schedules import reference_learning_rate, schedule_learning_rates
from service.spec import Method, ReferenceMethod, ReplayMethod, Schedule, StptMethod, SweepMethod
from workers.stpt import Stpt
from workers.trainer import Trainer
from workers.training import TrainedEpoch, Training

RatesOf = Callable[[int, Sequence[float]], tuple[float, list[float]]]


class Scheduled(Training):
    """`rates_of` (epoch, validation accuracies so far) gives the epoch's learning rate, and it at every iteration."""

    def __init__(self, trainer: Trainer, method: str, trial: int, rates_of: RatesOf) -> None:
        super().__init__(trainer, trial)
        self.method, self._rates_of = method, rates_of

    def train_epoch(self, epoch: int) -> TrainedEpoch:
        learning_rate, applied = self._rates_of(epoch, self.position.val_accuracies)
        if self.method == "replay":  # as the search did
            self.ease_momentum(applied[0])
        return self.plain_epoch(epoch, "scheduled", learning_rate, applied)


def make_training(method: Method, trial: int, trainer: Trainer) -> Training:
    """Trial number `trial`, from 1, of the method."""
    match method:
        case StptMethod():
            return Stpt(trainer)
        case SweepMethod(schedule=envelope):
            learning_rate = sweep_learning_rates(trainer.spec, method)[trial - 1]
            schedule = Schedule(learning_rates=[learning_rate] * trainer.spec.epochs, envelope=envelope)
            return Scheduled(trainer, "sweep", trial, _follow(schedule, trainer))
        case ReferenceMethod():
            iterations = trainer.plan.iterations

            def rates_of(_: int, val_accuracies: Sequence[float]) -> tuple[float, list[float]]:
                learning_rate = reference_learning_rate(method, val_accuracies)
                return learning_rate, [learning_rate] * iterations

            return Scheduled(trainer, "reference", trial, rates_of)
        case ReplayMethod(schedule=schedule):
            assert schedule is not None  # the door has put it in
            return Scheduled(trainer, "replay", trial, _follow(schedule, trainer))


def _follow(schedule: Schedule, trainer: Trainer) -> RatesOf:
    iterations = trainer.plan.iterations

    def rates_of(epoch: int, _: Sequence[float]) -> tuple[float, list[float]]:
        applied = schedule_learning_rates(schedule, epoch=epoch, iterations=iterations)
        return schedule.learning_rates[epoch - 1], applied

    return rates_of
