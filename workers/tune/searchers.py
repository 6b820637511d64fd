"""Ray Tune's searchers and schedulers by a method's name: what proposes the trials, and what stops them early."""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.schedulers.hyperband import _Bracket
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from service.algorithms.batch_ramp import Step, ramp
from service.algorithms.search_space import grid_points, most_trials, ramp_start, search_space
from service.spec.job import JobSpec
from service.spec.methods import Distribution, HalvingMethod, PbtMethod, RampMethod, SearchMethod
from service.spec.types import MAX_BATCH

METRIC, MODE, TIME = "val_accuracy", "max", "epoch"  # of what a trial reports

Space = Mapping[str, Distribution]
Admit = Callable[[str], bool | None]


# --- hyperparameters -----------------------------------------------------------------------------------


def tune_space(space: Space) -> dict[str, Any]:
    """As Ray Tune writes it. Choices travel as their places in the list: they may be of any kind."""
    return {
        key: tune.choice(list(range(len(distribution.choice))))
        if distribution.choice is not None
        else getattr(tune, distribution.kind)(*getattr(distribution, distribution.kind))
        for key, distribution in space.items()
    }


def hyperparameters(space: Space, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial's config says, choices included."""
    return {
        key: config[key] if distribution.choice is None else distribution.choice[config[key]]
        for key, distribution in space.items()
    }


def _placed(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as a config."""
    return {
        key: value if (choice := space[key].choice) is None else choice.index(value) for key, value in point.items()
    }


# --- who proposes --------------------------------------------------------------------------------------


def make_searcher(
    spec: JobSpec, method: SearchMethod, *, seed: int, samples: int, budget: int | None, admit: Admit
) -> SearchAlgorithm | Searcher:
    """`samples`: of an epoch; `admit`: whether another trial may begin, None: not now."""
    space = search_space(spec, method)
    if isinstance(method, PbtMethod):  # its scheduler takes no other
        return BasicVariantGenerator(random_state=seed)
    if isinstance(method, RampMethod):
        largest = min(samples, MAX_BATCH)
        return BatchRamp(ramp_start(spec), tolerance=method.tolerance, largest_batch=largest, admit=admit)
    trials = most_trials(spec, method, samples, budget)
    if method.name == "smac":
        return Gate(Smac(space, seed=seed, trials=trials), admit)
    sampler: BaseSampler = TPESampler(seed=seed) if method.name in ("tpe", "bohb") else RandomSampler(seed=seed)
    points = None
    if method.name in ("grid", "study"):
        points = [_placed(space, point) for point in grid_points(spec, method, samples, budget)]
    optuna_space = OptunaSearch.convert_search_space(tune_space(space))
    searcher = OptunaSearch(space=optuna_space, metric=METRIC, mode=MODE, sampler=sampler, points_to_evaluate=points)
    return Gate(searcher, admit)


class Gate(Searcher):
    """Asks the searcher behind it for a trial only when one may begin."""

    def __init__(self, searcher: Searcher, admit: Admit) -> None:
        super().__init__(metric=METRIC, mode=MODE)
        self._searcher, self._admit = searcher, admit

    def suggest(self, trial_id: str) -> Any:
        admitted = self._admit(trial_id)
        if admitted is None:
            return None
        return self._searcher.suggest(trial_id) if admitted else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._searcher.on_trial_complete(trial_id, result=result, error=error)

    def save(self, checkpoint_path: str) -> None:
        self._searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        self._searcher.restore(checkpoint_path)


class BatchRamp(Searcher):
    """service.algorithms.batch_ramp, one trial after another."""

    def __init__(self, start: Step, *, tolerance: float, largest_batch: int, admit: Admit) -> None:
        super().__init__(metric=METRIC, mode=MODE)
        self._start, self._tolerance, self._largest_batch, self._admit = start, tolerance, largest_batch, admit
        self._accuracies: list[float | None] = []  # None: diverged or failed
        self._under_way: str | None = None

    def suggest(self, trial_id: str) -> Any:
        if self._under_way is not None:
            return None
        found = ramp(self._start, self._accuracies, tolerance=self._tolerance, largest_batch=self._largest_batch)
        if found.next is None or not self._admit(trial_id):
            return Searcher.FINISHED
        self._under_way = trial_id
        return {
            "global_batch_size": found.next.global_batch_size,
            "learning_rate": found.next.learning_rate,
            "optimizer.momentum": found.next.momentum,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # a model that diverged has an accuracy too: that of chance
        self._accuracies.append(None if error or not result or result["state"] else result[METRIC])
        self._under_way = None

    def save(self, checkpoint_path: str) -> None:
        state = {"accuracies": self._accuracies, "under_way": self._under_way}
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        saved = json.loads(Path(checkpoint_path).read_text())
        self._accuracies, self._under_way = saved["accuracies"], saved["under_way"]


class Smac(Searcher):
    """SMAC3's facade for hyperparameters, asked and told (Lindauer et al. 2022, JMLR 23(54)); minimises the error."""

    def __init__(self, space: Space, *, seed: int, trials: int) -> None:
        super().__init__(metric=METRIC, mode=MODE)
        self._space, self._seed, self._trials = space, seed, trials
        self._told: list[tuple[dict[str, Any], int, float]] = []  # hyperparameters, SMAC's seed for them, error
        self._asked: dict[str, tuple[dict[str, Any], int]] = {}
        self._facade: Any = None

    def suggest(self, trial_id: str) -> dict[str, Any]:
        info = self._ready().ask()
        config = {key: value.item() if hasattr(value, "item") else value for key, value in dict(info.config).items()}
        self._asked[trial_id] = config, info.seed
        return config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        told = *self._asked.pop(trial_id), 1.0 - result[METRIC] if result and not error else 1.0
        self._told.append(told)
        self._tell(*told)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text(json.dumps({"told": self._told, "asked": self._asked}))

    def restore(self, checkpoint_path: str) -> None:
        saved = json.loads(Path(checkpoint_path).read_text())
        self._told = [(config, seed, error) for config, seed, error in saved["told"]]
        self._asked = {trial_id: (config, seed) for trial_id, (config, seed) in saved["asked"].items()}
        self._facade = None

    def _ready(self) -> Any:
        """The facade, told what is known."""
        if self._facade is None:
            from ConfigSpace import ConfigurationSpace
            from smac import HyperparameterOptimizationFacade, Scenario

            self._configurations = ConfigurationSpace(seed=self._seed % 2**32)
            self._configurations.add([_smac_domain(key, value) for key, value in self._space.items()])
            scenario = Scenario(
                self._configurations,
                output_directory=Path(tempfile.mkdtemp(prefix="forerun-smac-")),
                deterministic=True,
                n_trials=max(2, self._trials),
                seed=self._seed % 2**31,
            )
            self._facade = HyperparameterOptimizationFacade(
                scenario, lambda config, seed: 0.0, logging_level=False, overwrite=True
            )
            for told in self._told:
                self._tell(*told)
        return self._facade

    def _tell(self, config: dict[str, Any], seed: int, error: float) -> None:
        from ConfigSpace import Configuration
        from smac.runhistory.dataclasses import TrialInfo, TrialValue

        facade = self._ready()
        info = TrialInfo(Configuration(self._configurations, values=config), seed=seed)
        facade.tell(info, TrialValue(cost=error), save=False)


def _smac_domain(key: str, distribution: Distribution) -> Any:
    from ConfigSpace import CategoricalHyperparameter, UniformFloatHyperparameter, UniformIntegerHyperparameter

    if distribution.choice is not None:
        return CategoricalHyperparameter(key, list(range(len(distribution.choice))))
    low, high = distribution.extremes
    kind = UniformIntegerHyperparameter if distribution.kind.endswith("randint") else UniformFloatHyperparameter
    return kind(key, low, high, log=distribution.kind.startswith("log"))


# --- who stops, pauses and copies ------------------------------------------------------------------------


def make_scheduler(method: SearchMethod, space: Space, epochs: int) -> TrialScheduler | None:
    """None: every trial trains to its end."""
    if isinstance(method, HalvingMethod):
        if method.name == "asha":
            return ASHAScheduler(time_attr=TIME, max_t=epochs, grace_period=1, reduction_factor=method.reduction_factor)
        return HyperBand(time_attr=TIME, max_t=epochs, reduction_factor=method.reduction_factor)
    if isinstance(method, PbtMethod):
        return PopulationBasedTraining(
            time_attr=TIME,
            perturbation_interval=method.perturbation_interval or max(1, epochs // 8),
            hyperparam_mutations=tune_space(space),
            custom_explore_fn=partial(_within, space),
            synch=True,  # nobody copies from the past, and runs with one seed agree
        )
    return None


def _within(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """A perturbed config, back inside its ranges."""
    for key, distribution in space.items():
        if distribution.choice is None:
            low, high = distribution.extremes
            config[key] = min(max(config[key], low), high)
    return config


class HyperBand(HyperBandScheduler):
    """Tune's Hyperband with the brackets in the paper's order, the one that stops earliest first: a budget that ends
    within the first round is then spent on many trials instead of a few whole ones. Resumed searches leave out the
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
