"""Grid search: its fields, and its number of points."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.spec.methods.base import Facts
from service.spec.methods.search import TunedMethod, grid

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class GridMethod(TunedMethod):
    """Grid search: whole trainings at the points of a grid over the search space, evenly spaced, in the logarithm where
    the distribution is."""

    name: Literal["grid"] = Field("grid", description="Name of this method.")

    def most_trials(self, spec: "JobSpec", facts: Facts) -> int:
        """The number of trials of one seed: the points of the grid, as far as there is room for them."""
        return min(self._room(spec, facts), len(self.points(spec, facts)))

    def points(self, spec: "JobSpec", facts: Facts) -> list[dict[str, Any]]:
        """The points of the grid, as hyperparameters by name. Without a space, a budget and a number of trials they are
        the candidates of the job's lr_set: the conventional sweep of STPT (Yamada et al., Fig. 3)."""
        if self.search_space is None and self.max_trials is None and facts.budget is None:
            return [{"learning_rate": value} for value in facts.candidates]
        return grid(self.space(spec, facts.candidates), self._room(spec, facts))

    def _room(self, spec: "JobSpec", facts: Facts) -> int:
        """Whole trainings alone fit the budget: a grid stops none early."""
        if self.max_trials is not None or facts.budget is None:
            return super().most_trials(spec, facts)
        return max(1, facts.budget // (facts.epoch_samples * spec.epochs))
