"""DoG, distance over gradients (Ivgi et al. 2023, arXiv 2302.12022)."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.methods.base import WholeBudgetMethod


class DogMethod(WholeBudgetMethod):
    """DoG (Ivgi et al. 2023, arXiv 2302.12022; the package dog-optimizer): SGD whose step size is the largest
    distance from the initial weights over the root of the summed squares of the gradients. It has no learning rate and
    no schedule, and is judged by the polynomial-decay average of its weights, as its authors advise. It takes the whole
    budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["dog"] = Field("dog", description="Name of this method.")
    initial_distance: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Length of the first step (r_epsilon of the paper) as a share of 1 + the norm of the initial "
        "weights; null: what the authors advise, 1e-6, or 1e-4 where the model has batch normalisation.",
    )
