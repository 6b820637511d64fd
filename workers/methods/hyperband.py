"""Builds Hyperband, a search by Ray Tune, with its brackets in the paper's order."""

from collections.abc import Callable
from typing import Any

from optuna.samplers import RandomSampler
from ray.tune.experiment import Trial
from ray.tune.schedulers import HyperBandScheduler, TrialScheduler
from ray.tune.schedulers.hyperband import _Bracket
from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.hyperband import HyperbandMethod
from workers.tune.searchers import TIME, Ask, Space, proposed_by_optuna


class HyperBand(HyperBandScheduler):
    """Ray Tune's Hyperband with the brackets in the paper's order, the one that stops earliest first: a budget that
    ends within the first round is then spent on many trials instead of a few whole ones. Resumed searches leave out the
    trials that have ended, which Tune's own would wait for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        trials: Callable[[int], int] = self._get_n0
        epochs: Callable[[int], int] = self._get_r0
        last = self._s_max_1 - 1
        self._trials: Callable[[int], int] = lambda s: trials(last - s)
        self._epochs: Callable[[int], int] = lambda s: epochs(last - s)
        self._get_n0, self._get_r0 = self._trials, self._epochs

    def _create_bracket(self, s: int) -> Any:
        return _Bracket(
            time_attr=self._time_attr,
            max_trials=self._trials(s),
            init_t_attr=self._epochs(s),
            max_t_attr=self._max_t_attr,
            eta=self._eta,
            s=self._s_max_1 - 1 - s,
            stop_last_trials=self._stop_last_trials,
        )

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if not trial.is_finished():
            super().on_trial_add(tune_controller, trial)


def make_searcher(method: HyperbandMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of Hyperband, drawn at random, for the job, seed and search space that
    `ask` names."""
    return proposed_by_optuna(RandomSampler(seed=ask.seed), ask)


def make_scheduler(method: HyperbandMethod, space: Space, epochs: int) -> TrialScheduler:
    """The scheduler that stops trials early by Hyperband. `space` has the ranges of their hyperparameters; a trial
    trains `epochs` epochs at most."""
    return HyperBand(time_attr=TIME, max_t=epochs, reduction_factor=method.reduction_factor)
