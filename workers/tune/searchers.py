"""What searches by Ray Tune are made of: their spaces as Tune writes them, what a searcher is made for, and a gate
before it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.samplers import BaseSampler
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from service.spec.job import JobSpec
from service.spec.methods.search import Distribution

METRIC, MODE, TIME = "val_accuracy", "max", "epoch"  # of what a trial reports

Space = Mapping[str, Distribution]
Admit = Callable[[str], bool | None]


# --- hyperparameters -----------------------------------------------------------------------------------


def tune_space(space: Space) -> dict[str, Any]:
    """A search space as Ray Tune writes it. Choices become their places in the list, as they may be of any kind."""
    return {
        key: tune.choice(list(range(len(distribution.choice))))
        if distribution.choice is not None
        else getattr(tune, distribution.kind)(*getattr(distribution, distribution.kind))
        for key, distribution in space.items()
    }


def hyperparameters(space: Space, config: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters that the config of a trial stands for, with choices by their values."""
    return {
        key: config[key] if distribution.choice is None else distribution.choice[config[key]]
        for key, distribution in space.items()
    }


def _placed(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """A point of the search space as the config of a trial, with choices by their places."""
    return {
        key: value if (choice := space[key].choice) is None else choice.index(value) for key, value in point.items()
    }


# --- who proposes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """What a searcher is made for.

    `samples` are those of an epoch. `admit`, called with Tune's name of a trial, says whether it may begin; None means
    not now.
    """

    spec: JobSpec
    space: Space
    seed: int
    samples: int
    trials: int  # that may begin
    points: Sequence[Mapping[str, Any]] | None  # of the trials, where they are known beforehand
    admit: Admit


def proposed_by_optuna(sampler: BaseSampler, ask: Ask) -> Searcher:
    """A searcher that proposes what Optuna's sampler does, behind the gate; points that are known beforehand come
    first."""
    space = OptunaSearch.convert_search_space(tune_space(ask.space))
    known = None if ask.points is None else [_placed(ask.space, point) for point in ask.points]
    searcher = OptunaSearch(space=space, metric=METRIC, mode=MODE, sampler=sampler, points_to_evaluate=known)
    return Gate(searcher, ask.admit)


class Gate(Searcher):
    """A searcher that asks the one behind it for a trial only when one may begin."""

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
