"""Builds a training by AutoLRS (Jin et al. 2021, arXiv 2105.10762): stage by stage, at learning rates that Bayesian
optimisation has found."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.algorithms.autolrs import EVALUATIONS, Series, Tried, best_of, forecast_loss, propose
from service.algorithms.candidates import first_candidates
from service.errors import Diverged
from service.spec.job import JobSpec
from service.spec.methods.autolrs import AutoLrsMethod, LrStage
from service.wire.worker import BranchRecord, BranchState
from workers.build import build_trainer
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.engine.seeds import derived_seed
from workers.engine.trainer import Measurement, Trainer
from workers.methods.base import TrainedEpoch, Training, finite

UNTRAINED = "untrained_loss"  # in the selector's state: the training loss before the first step


@dataclass(frozen=True)
class Trial:
    """A learning rate that was tried at the start of a stage, with the losses that it led to."""

    tried: Tried
    training: Measurement
    first_loss: float  # of the first batch, before any step of the trial
    evaluations: int  # of the validation split
    seconds: float


class AutoLrs(Training):
    """A training whose first epoch of each stage begins with trials, whose end states are given up.

    The learning rate of the stage is that of its epochs' records, and with it of every checkpoint: a training that is
    resumed within a stage goes on by it, without trials.
    """

    def __init__(self, method: AutoLrsMethod, trainer: Trainer, trial: int) -> None:
        super().__init__(trainer, trial)
        self.label, self._method = method.label, method
        self._interval = method.interval(first_candidates(self.spec))
        stages = method.stages(self.spec.epochs, trainer.iterations)
        self._stages = {stage.first_epoch: stage for stage in stages}

    def train_epoch(self, epoch: int) -> TrainedEpoch:
        """Train epoch number `epoch`; the first one of a stage begins with its trials. Raises Diverged where each of
        them does."""
        stage = self._stages.get(epoch)
        if stage is not None:
            return self._search_epoch(stage)
        trained = self._plain_epoch(epoch, self.position.learning_rate)
        return replace(trained, selector_state=self.position.selector_state)

    def _search_epoch(self, stage: LrStage) -> TrainedEpoch:
        began = time.perf_counter()
        trials = self._search(stage)
        chosen = best_of([trial.tried for trial in trials])
        if chosen is None:
            raise Diverged(
                f"epoch {stage.first_epoch}: every learning rate that {self.label}, trial {self.trial}, has tried "
                f"diverged, down to {min(trial.tried.learning_rate for trial in trials):g}; lower search_interval"
            )
        searched = time.perf_counter()
        trained = self._plain_epoch(stage.first_epoch, trials[chosen].tried.learning_rate)
        judged = self.trainer.evaluation_samples(self.trainer.data.validation, accuracy=False)
        return replace(
            trained,
            phase="stpt",
            began=began,
            pretrained=searched,
            iterations=trained.iterations + len(trials) * stage.trial_iterations,
            samples=trained.samples + sum(trial.training.samples for trial in trials),
            branches=[_branch(number, trial, stage, chosen) for number, trial in enumerate(trials)],
            evaluation_samples=trained.evaluation_samples + sum(trial.evaluations for trial in trials) * judged,
            selector_state=self._state(trials[0].first_loss),
        )

    def _plain_epoch(self, epoch: int, learning_rate: float) -> TrainedEpoch:
        return self.plain_epoch(epoch, "scheduled", learning_rate, [learning_rate] * self.trainer.iterations)

    # --- the trials of a stage ---------------------------------------------------------------------------

    def _search(self, stage: LrStage) -> list[Trial]:
        """Try one learning rate after another from the training's state at hand, which is left as it was."""
        state, trials = self.trainer.state, list[Trial]()
        self.trainer.kept = min(stage.trial_iterations, self.trainer.iterations)
        start = state.save(state.empty())
        for number in range(self._method.trials):
            trials.append(self._try(stage, self._next([trial.tried for trial in trials], stage, number)))
            state.load(start)
        return trials

    def _next(self, tried: Sequence[Tried], stage: LrStage, number: int) -> float:
        seed = derived_seed(self.spec.seed, stage.first_epoch, number)
        return self._agreed(propose(tried, self._interval, kappa=self._method.kappa, seed=seed))

    def _try(self, stage: LrStage, learning_rate: float) -> Trial:
        """Train the stage's first iterations at this learning rate, on their own batches, and forecast the loss at its
        end."""
        began = time.perf_counter()
        training, losses = Measurement(0.0, 0.0, 0), list[float]()
        judged = dict[int, float]()  # validation losses by the iterations behind them
        marks = _marks(stage.trial_iterations) if stage.by_validation else ()
        for number in range(stage.trial_iterations):
            epoch, iteration = divmod(number, self.trainer.iterations)
            step = self.main_train(stage.first_epoch + epoch, range(iteration, iteration + 1), [learning_rate])
            training += step
            losses.append(step.loss)
            if number + 1 in marks:
                judged[number + 1] = self._validation_loss()
        series = Series(list(judged), list(judged.values()), True) if judged else Series(range(len(losses)), losses)
        untrained = self.position.selector_state.get(UNTRAINED, losses[0])
        forecast = forecast_loss(series, stage.epochs * self.trainer.iterations, untrained=untrained)
        tried = Tried(learning_rate, self._agreed(forecast if training.is_finite else float("nan")))
        return Trial(tried, training, losses[0], len(judged), time.perf_counter() - began)

    def _validation_loss(self) -> float:
        return self.trainer.evaluate(self.trainer.data.validation, self.world, accuracy=False).loss

    def _agreed(self, value: float) -> float:
        """The number as the first worker has it: linear algebra may differ in the last bits between machines."""
        return float(self.world.broadcast_text(repr(value), 0, self.trainer.workers.device))

    def _state(self, first_loss: float) -> dict[str, float]:
        return {UNTRAINED: self.position.selector_state.get(UNTRAINED, first_loss)}


def _marks(iterations: int) -> set[int]:
    """Behind which of so many iterations of a trial the validation split is evaluated: sixteen times, or each time."""
    return {round(iterations * number / EVALUATIONS) for number in range(1, EVALUATIONS + 1)} - {0}


def _branch(number: int, trial: Trial, stage: LrStage, chosen: int) -> BranchRecord:
    """The record of a trial as a branch; its metric is the loss that is forecast for the end of the stage."""
    metric = finite(trial.tried.loss)
    lost: BranchState = "diverged" if metric is None else "lost"
    return BranchRecord(
        number=number + 1,
        learning_rate=trial.tried.learning_rate,
        metric=metric,
        state="chosen" if number == chosen else lost,
        iterations=stage.trial_iterations,
        samples=trial.training.samples,
        seconds=trial.seconds,
    )


def build(method: AutoLrsMethod, trial: int, spec: JobSpec, data: Data, workers: Workers) -> Training:
    """Trial number `trial` (from 1) of the method: one training by AutoLRS, its model as the seed of `spec` makes it,
    before its first step."""
    return AutoLrs(method, build_trainer(spec, data, workers), trial)
