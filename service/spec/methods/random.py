"""Random search (Bergstra & Bengio 2012, JMLR 13)."""

from typing import Literal

from pydantic import Field

from service.spec.methods.search import TunedMethod


class RandomMethod(TunedMethod):
    """Random search: whole trainings at random points of the search space (Bergstra & Bengio 2012, JMLR 13)."""

    name: Literal["random"] = Field("random", description="Name of this method.")
