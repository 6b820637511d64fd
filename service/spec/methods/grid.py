"""Grid search: its fields, and its number of points."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.methods.base import Facts, Probe
from service.spec.methods.search import MAX_TRIALS, Grid, TunedMethod, combinations, grid

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class GridMethod(TunedMethod):
    """Grid search: whole trainings at the points of a grid over the search space, evenly spaced, in the logarithm where
    the distribution is."""

    name: Literal["grid"] = Field("grid", description="Name of this method.")

    def most_trials(self, spec: "JobSpec", facts: Facts) -> int:
        """The number of trials of one seed: the points of the grid, as far as there is room for them."""
        return min(self._room(spec, facts), self.points(spec, facts).size)

    def points(self, spec: "JobSpec", facts: Facts) -> Grid:
        """The points of the grid, as hyperparameters by name. Without a space, a budget and a number of trials they are
        the candidates of the job's lr_set: the conventional sweep of STPT (Yamada et al., Fig. 3)."""
        if self.search_space is None and self.max_trials is None and facts.budget is None:
            return Grid({"learning_rate": facts.candidates})
        return grid(self.space(spec, facts.candidates), self._room(spec, facts))

    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> Iterator[FieldError | Probe]:
        """As of every search of a space; before that an error where the combinations of choices alone are more than
        there may be trials."""
        count, most = combinations(self.search_space or {}), self.max_trials or MAX_TRIALS
        if count > most:
            whose = f"max_trials ({most})" if self.max_trials else f"a grid may have ({most})"
            more = f"raise max_trials to {count}, list" if self.max_trials and count <= MAX_TRIALS else "list"
            message = f"its choices have {count} combinations, more than {whose}; {more} fewer values, or use random"
            yield FieldError(f"{field}.search_space", count, message)
            return
        yield from super().probes(spec, field, train_samples)

    def _room(self, spec: "JobSpec", facts: Facts) -> int:
        """Whole trainings alone fit the budget: a grid stops none early."""
        if self.max_trials is not None or facts.budget is None:
            return super().most_trials(spec, facts)
        return min(MAX_TRIALS, max(1, facts.budget // (facts.epoch_samples * spec.epochs)))
