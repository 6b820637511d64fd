"""Builds a search by SMAC3 (Lindauer et al. 2022, JMLR 23(54)), asked for trials and told of their results."""

import json
import tempfile
from pathlib import Path
from typing import Any

from ray.tune.search import SearchAlgorithm, Searcher

from service.spec.methods.search import Distribution
from service.spec.methods.smac import SmacMethod
from workers.tune.searchers import METRIC, MODE, Ask, Gate, Space


class Smac(Searcher):
    """A searcher that asks SMAC3's facade for hyperparameters and tells it of their results (Lindauer et al. 2022, JMLR
    23(54)); it minimises the error, 1 - validation accuracy."""

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
        """SMAC3's facade, once it has been told of every result that is known."""
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


def make_searcher(method: SmacMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of SMAC3, each when it may begin, for the job, seed and search space that
    `ask` names."""
    return Gate(Smac(ask.space, seed=ask.seed, trials=ask.trials), ask.admit)
