"""Trainings without search, each a function of the epoch and what came before: sweep, reference, replay, cosine, …"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from torch import nn

from service.algorithms.candidates import sweep_learning_rates
from service.algorithms.lr_schedules import (
    method_learning_rates,
    one_cycle,
    reference_learning_rate,
    scaled_learning_rate,
    scaled_optimizer,
    schedule_learning_rates,
)
from service.spec.job import JobSpec
from service.spec.methods import (
    CosineMethod,
    Envelope,
    OneCycleMethod,
    ProdigyMethod,
    ReferenceMethod,
    ReplayMethod,
    Schedule,
    ScheduleFreeMethod,
    ScheduleMethod,
    StptMethod,
    SweepMethod,
    TrainedMethod,
)
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.engine.trainer import Trainer
from workers.methods.base import TrainedEpoch, Training
from workers.methods.stpt import Stpt
from workers.optimizers.build import build_parameter_free, parameter_free_learning_rate

RatesOf = Callable[[int, Sequence[float]], tuple[float, list[float]]]


class Scheduled(Training):
    """`rates_of` (epoch, validation accuracies so far) gives the epoch's learning rate, and it at every iteration."""

    def __init__(self, trainer: Trainer, method: str, trial: int, rates_of: RatesOf) -> None:
        super().__init__(trainer, trial)
        self.method, self._rates_of = method, rates_of

    @property
    def counts_in_optimizer(self) -> bool:
        return self.method in ("schedule-free", "prodigy")

    def train_epoch(self, epoch: int) -> TrainedEpoch:
        learning_rate, applied = self._rates_of(epoch, self.position.val_accuracies)
        if self.method == "replay":  # as the search did
            self.ease_momentum(applied[0])
        return self.plain_epoch(epoch, "scheduled", learning_rate, applied)


def make_training(method: TrainedMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial`, from 1, of the method: the model as the seed of `spec` makes it, before its first step."""
    if isinstance(method, ScheduleMethod | StptMethod):
        spec = spec.model_copy(update={"optimizer": scaled_optimizer(method, spec)})
    if isinstance(method, StptMethod):
        spec = spec.model_copy(update={"initial_learning_rate": scaled_learning_rate(method, spec)})
    trainer = Trainer(spec, data, workers, _optimizer(method, spec))
    match method:
        case StptMethod():
            return Stpt(trainer, trial)
        case SweepMethod(schedule=envelope):
            learning_rates = sweep_learning_rates(spec, method)
            learning_rate = learning_rates[(trial - 1) % len(learning_rates)]
            return constant(trainer, "sweep", trial, learning_rate, envelope)
        case ReferenceMethod():
            iterations = trainer.plan.iterations

            def rates_of(_: int, val_accuracies: Sequence[float]) -> tuple[float, list[float]]:
                learning_rate = reference_learning_rate(method, val_accuracies)
                return learning_rate, [learning_rate] * iterations

            return Scheduled(trainer, "reference", trial, rates_of)
        case ReplayMethod(schedule=schedule):
            assert schedule is not None  # the door has put it in
            return Scheduled(trainer, "replay", trial, _follow(schedule, trainer))
        case CosineMethod(learning_rate=learning_rate):
            return constant(trainer, "cosine", trial, learning_rate or spec.initial_learning_rate, "cosine")
        case OneCycleMethod(learning_rate=learning_rate):
            return _one_cycle(trainer, trial, learning_rate or spec.initial_learning_rate)
        case ScheduleFreeMethod():
            learning_rate = parameter_free_learning_rate(method, spec.optimizer)
            return constant(trainer, "schedule-free", trial, learning_rate, "constant")
        case ProdigyMethod(learning_rate=learning_rate):
            return constant(trainer, "prodigy", trial, learning_rate, "cosine")
        case ScheduleMethod():
            return Scheduled(trainer, "schedule", trial, _written_out(method, trainer))


def constant(trainer: Trainer, method: str, trial: int, learning_rate: float, envelope: Envelope) -> Scheduled:
    """One learning rate for the whole training, under an envelope."""
    schedule = Schedule(learning_rates=[learning_rate] * trainer.spec.epochs, envelope=envelope)
    return Scheduled(trainer, method, trial, _follow(schedule, trainer))


def _one_cycle(trainer: Trainer, trial: int, learning_rate: float) -> Scheduled:
    iterations = trainer.plan.iterations
    whole = iterations * trainer.spec.epochs

    def rates_of(epoch: int, _: Sequence[float]) -> tuple[float, list[float]]:
        first = (epoch - 1) * iterations
        applied = [learning_rate * one_cycle(first + iteration, whole) for iteration in range(iterations)]
        return learning_rate, applied

    return Scheduled(trainer, "one-cycle", trial, rates_of)


def _written_out(method: ScheduleMethod, trainer: Trainer) -> RatesOf:
    spec, iterations = trainer.spec, trainer.plan.iterations

    def rates_of(epoch: int, _: Sequence[float]) -> tuple[float, list[float]]:
        applied = method_learning_rates(method, spec, epoch=epoch, iterations=iterations)
        return scaled_learning_rate(method, spec), applied

    return rates_of


def _optimizer(method: TrainedMethod, spec: JobSpec) -> Callable[[Iterable[nn.Parameter]], Any] | None:
    """What takes the place of the job's optimizer."""
    if isinstance(method, ScheduleFreeMethod | ProdigyMethod):
        return partial(build_parameter_free, method, spec.optimizer)
    return None


def _follow(schedule: Schedule, trainer: Trainer) -> RatesOf:
    iterations = trainer.plan.iterations

    def rates_of(epoch: int, _: Sequence[float]) -> tuple[float, list[float]]:
        applied = schedule_learning_rates(schedule, epoch=epoch, iterations=iterations)
        return schedule.learning_rates[epoch - 1], applied

    return rates_of
