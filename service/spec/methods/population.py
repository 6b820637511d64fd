"""What searches have in common that train a population side by side."""

from typing import TYPE_CHECKING

from pydantic import Field

from service.spec.methods.base import Facts
from service.spec.methods.search import TunedMethod

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class PopulationMethod(TunedMethod):
    """A search whose trials are the members of a population; bad ones go on from good ones' weights, with other
    hyperparameters."""

    population: int = Field(4, ge=2, le=1000, description="Trainings side by side; they share the budget.")
    perturbation_interval: int | None = Field(
        None, ge=1, le=100_000, description="Epochs between exploits; null: an eighth of the training."
    )

    def training_epochs(self, spec: "JobSpec", epoch_samples: int, budget: int | None) -> int:
        """The number of epochs of each member at most: the job's, or those that its equal share of the budget (in
        training samples) has room for, at least one."""
        return spec.epochs if budget is None else min(spec.epochs, max(1, budget // self.population // epoch_samples))

    def most_trials(self, spec: "JobSpec", facts: Facts) -> int:
        """The number of trials of one seed: the members of the population."""
        return self.population

    def interval(self, epochs: int) -> int:
        """The number of epochs from one exploit to the next, in trainings of `epochs` epochs."""
        return self.perturbation_interval or max(1, epochs // 8)
