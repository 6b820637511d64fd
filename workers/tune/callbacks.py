"""Ray Tune's side of a search: it asks whether trials may begin and go on, and tells what happens to them.

Tune pickles what stands here with its experiment, so none of it holds the search, which is a global of the driver's
process.
"""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from workers.report import PauseAsked
from workers.tune.search import Search

LOST_ACTORS = 2  # restarts of a trial whose process died; what it raises itself would come again

_search: Search | None = None


def begin(search: Search) -> None:
    """Set the search that this process works on from now on."""
    global _search
    _search = search


def current() -> Search:
    """The search that this process works on."""
    assert _search is not None
    return _search


def admit(key: str) -> bool | None:
    """Whether another trial, called `key`, may begin in the search of this process; None means not before another one
    has ended."""
    return current().admit_trial(key)


class Budget(Stopper):
    """Tells Ray Tune to stop a trial that may not train another epoch."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return not current().may_go_on(trial_id, result)

    def stop_all(self) -> bool:
        return False


class Recording(tune.Callback):
    """Has the search of this process record what Ray Tune tells of its trials."""

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        current().resumed({trial.trial_id for trial in trials})
        current().tell_ends()
        if current().is_to_pause:
            raise PauseAsked

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        current().began(trial.trial_id, trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        current().began(trial.trial_id, trial.config)
        if result["record"]:
            current().epoch(trial.trial_id, result)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        # Only now, behind the result: Tune's next snapshot has the report that was answered so, and its checkpoint.
        current().is_to_pause = current().service.pause_asked

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        current().end(trial.trial_id, "stopped", f"stopped early by {current().method.label}")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        current().end(trial.trial_id, "failed", f"its process died {LOST_ACTORS + 1} times")
