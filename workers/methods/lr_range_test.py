"""Builds a training that follows a learning-rate range test (Smith 2017, arXiv 1506.01186)."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from service.algorithms.lr_range_test import (
    RangeTest,
    curve_of,
    range_learning_rates,
    run_range_test,
    suggested_learning_rate,
)
from service.algorithms.lr_schedules import epoch_lr_factors, one_cycle_factors
from service.errors import Diverged
from service.spec.job import JobSpec
from service.spec.methods.lr_range_test import LrRangeTestMethod
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.engine.trainer import Trainer
from workers.methods.base import TrainedEpoch, Training


class LrRangeTest(Training):
    """A training whose first epoch begins with a learning-rate range test, and begins anew behind it.

    The learning rate that the test suggests is that of every epoch's record, and with it of every checkpoint: a
    training that is resumed goes on by it, without another test.
    """

    def __init__(self, method: LrRangeTestMethod, trainer: Trainer, trial: int) -> None:
        super().__init__(trainer, trial)
        self.label, self._method = method.label, method

    def train_epoch(self, epoch: int) -> TrainedEpoch:
        """Train epoch number `epoch`; the first one begins with the range test. Raises Diverged where that suggests no
        learning rate."""
        if epoch > 1:
            return self._scheduled_epoch(epoch, self.position.learning_rate)
        began = time.perf_counter()
        test = self._range_test()
        learning_rate = self._suggested(test)
        trained = self._scheduled_epoch(epoch, learning_rate)
        tried = len(test.learning_rates)
        return replace(
            trained,
            began=began,
            iterations=trained.iterations + tried,
            samples=trained.samples + tried * self.spec.global_batch_size,
        )

    def _scheduled_epoch(self, epoch: int, learning_rate: float) -> TrainedEpoch:
        epochs, iterations = self.spec.epochs, self.trainer.iterations
        if self._method.lr_schedule == "linear":
            factors = epoch_lr_factors("linear", epoch=epoch, epochs=epochs, iterations=iterations)
        else:
            factors = one_cycle_factors(epoch=epoch, epochs=epochs, iterations=iterations)
        return self.plain_epoch(epoch, "scheduled", learning_rate, [learning_rate * factor for factor in factors])

    def _range_test(self) -> RangeTest:
        """Run the range test from the training's state at hand, which is left as it was."""
        method, state = self._method, self.trainer.state
        iterations = self.trainer.iterations if method.iterations is None else method.iterations
        rates = range_learning_rates(method.min_learning_rate, method.max_learning_rate, iterations)
        start = state.save(state.empty())
        test = run_range_test(
            rates, self._losses(rates), smoothing=method.smoothing, threshold=method.divergence_threshold
        )
        state.load(start)
        return test

    def _losses(self, learning_rates: Sequence[float]) -> Iterator[float]:
        """Train an iteration by all workers at each learning rate, and yield the loss before its step: the mean over
        the global batch, the same on every worker. The batches are those of the training, epoch after epoch."""
        for number, learning_rate in enumerate(learning_rates):
            epoch, iteration = divmod(number, self.trainer.iterations)
            yield self.main_train(epoch + 1, range(iteration, iteration + 1), [learning_rate]).loss

    def _suggested(self, test: RangeTest) -> float:
        """The learning rate that the test suggests; the trial's record is to tell it. Raises Diverged where the test
        suggests none."""
        suggestion, rates = self._method.suggestion, test.learning_rates
        learning_rate = suggested_learning_rate(test, suggestion)
        if learning_rate is None:
            raise Diverged(
                f"the range test of {self.label}, trial {self.trial}, suggests no learning rate: in {len(rates)} "
                f"iterations from {rates[0]:g} to {rates[-1]:g} the smoothed loss did not fall; lower "
                "min_learning_rate, or raise iterations or max_learning_rate"
            )
        curve = {"iterations": len(rates), "diverged": test.diverged, **curve_of(test)}
        self.config = {"learning_rate": learning_rate, "suggestion": suggestion, "range_test": curve}
        return learning_rate


def build(method: LrRangeTestMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training behind a range test, its model as the seed of `spec`
    makes it, before its first step."""
    return LrRangeTest(method, build_trainer(spec, data, workers), trial)
