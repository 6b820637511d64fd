"""Population-based training (PBT, Jaderberg et al. 2017, arXiv 1711.09846): its fields, and its share of a budget."""

from typing import Literal

from pydantic import Field

from service.spec.methods.population import PopulationMethod


class PbtMethod(PopulationMethod):
    """Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): bad members go on from good ones' weights,
    with other hyperparameters."""

    name: Literal["pbt"] = Field("pbt", description="Name of this method.")
