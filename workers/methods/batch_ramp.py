"""Builds the batch ramp (Signer & Barbier, section IV), which trains one trial after another."""

import json
from pathlib import Path
from typing import Any

from ray.tune.search import SearchAlgorithm, Searcher

from service.algorithms.batch_ramp import Step, ramp
from service.algorithms.search_space import ramp_start
from service.spec.methods.batch_ramp import RampMethod
from service.spec.types import MAX_BATCH
from workers.tune.searchers import METRIC, MODE, Admit, Ask


class BatchRamp(Searcher):
    """Proposes the steps of service.algorithms.batch_ramp, one trial after another."""

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


def make_searcher(method: RampMethod, ask: Ask) -> Searcher | SearchAlgorithm:
    """The searcher that proposes the trials of the batch ramp, one after another, for the job, seed and search space
    that `ask` names."""
    largest = min(ask.samples, MAX_BATCH)
    return BatchRamp(ramp_start(ask.spec), tolerance=method.tolerance, largest_batch=largest, admit=ask.admit)
