"""Builds a training that tries several learning rates on each batch (Tan et al. 2025, doi 10.3390/jeta4010001)."""

import time
from dataclasses import replace

from service.spec.job import JobSpec
from service.spec.methods.polling import PollingMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.engine.trainer import Measurement, Trainer
from workers.methods.base import TrainedEpoch, Training


class Polling(Training):
    """A training that polls its learning rate at every `every`-th iteration, counted from the first of all.

    The learning rate of an epoch's record is that of its last iteration, by which the next epoch goes on until its
    first poll.
    """

    remedy = "smaller learning_rates"

    def __init__(self, method: PollingMethod, trainer: Trainer, trial: int) -> None:
        super().__init__(trainer, trial)
        self.label, self._method = method.label, method

    def train_epoch(self, epoch: int) -> TrainedEpoch:
        """Train epoch number `epoch`, poll by poll; what the polls took is part of what it returns."""
        began = time.perf_counter()
        method, iterations = self._method, self.trainer.iterations
        first = (epoch - 1) * iterations
        learning_rate = self.position.learning_rate
        applied, training, polls = list[float](), Measurement(0.0, 0.0, 0), 0
        for iteration in range(iterations):
            if (first + iteration) % method.every == 0:
                learning_rate, measured = self._poll(epoch, iteration)
                polls += 1
            else:
                measured = self.main_train(epoch, range(iteration, iteration + 1), [learning_rate])
            training += measured
            applied.append(learning_rate)
        trained = self.end_epoch(epoch, "scheduled", learning_rate, applied, training, began)
        tried = polls * len(method.learning_rates)
        return replace(
            trained,
            iterations=trained.iterations + tried,
            samples=trained.samples + tried * self.spec.global_batch_size,
        )

    def _poll(self, epoch: int, iteration: int) -> tuple[float, Measurement]:
        key = _loss if self._method.criterion == "loss" else _error
        trainer, rates = self.trainer, self._method.learning_rates
        return trainer.poll(epoch, iteration, rates, self.world, self.spec.workers, key)


def _loss(measured: Measurement) -> float:
    return measured.loss


def _error(measured: Measurement) -> float:
    """The share of samples that are classified wrongly; not finite where the loss is not, as the model then answers at
    random."""
    return 1.0 - measured.accuracy if measured.is_finite else measured.loss


def build(method: PollingMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training that polls its learning rates, its model as the seed of
    `spec` makes it, before its first step."""
    return Polling(method, build_trainer(spec, data, workers), trial)
