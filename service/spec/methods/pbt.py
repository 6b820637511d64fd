"""Population-based training (PBT, Jaderberg et al. 2017, arXiv 1711.09846): its fields, and its share of a budget."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from service.spec.methods.base import Facts
from service.spec.methods.search import TunedMethod

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class PbtMethod(TunedMethod):
    """Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): bad members go on from good ones' weights,
    with other hyperparameters."""

    name: Literal["pbt"] = Field("pbt", description="Name of this method.")
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
