"""Population-based bandits (PB2, Parker-Holder, Nguyen & Roberts 2020, arXiv 2002.02518)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from service.errors import FieldError
from service.spec.methods.base import Probe
from service.spec.methods.population import PopulationMethod

if TYPE_CHECKING:
    from service.spec.job import JobSpec


class Pb2Method(PopulationMethod):
    """Population-based bandits (PB2, Parker-Holder, Nguyen & Roberts 2020, arXiv 2002.02518): population-based training
    whose new hyperparameters a Gaussian process proposes, by what all members gained with theirs. It searches ranges
    alone."""

    name: Literal["pb2"] = Field("pb2", description="Name of this method.")

    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> Iterator[FieldError | Probe]:
        """What is wrong with the method as a search, such as choices in its search space, and which trials must be
        possible. `field` is its place in the spec; `train_samples` are those that are not held out, None where they are
        not known."""
        if self.search_space == {}:
            message = "must name a hyperparameter; leave it out to search the learning rate"
            yield FieldError(f"{field}.search_space", self.search_space, message)
            return
        for key, distribution in (self.search_space or {}).items():
            if distribution.choice is not None:
                message = "must be a range: a Gaussian process proposes values; use uniform, or pbt for choices"
                yield FieldError(f"{field}.search_space.{key}", distribution.kind, message)
                return
        yield from super().probes(spec, field, train_samples)
