"""What searches have in common that stop bad trials early, by successive halving."""

from pydantic import Field

from service.spec.methods.search import TunedMethod


class HalvingMethod(TunedMethod):
    """The base of searches by successive halving: of the trials of a rung, one of `reduction_factor` goes on to the
    next."""

    reduction_factor: int = Field(3, ge=2, le=16, description="eta: one of this many trials goes on to the next rung.")
