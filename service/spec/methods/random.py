"""Random search."""

from typing import Literal

from pydantic import Field

from service.spec.methods.search import TunedMethod


class RandomMethod(TunedMethod):
    """Whole trainings at random points of the space (Bergstra & Bengio 2012, JMLR 13)."""

    name: Literal["random"] = Field("random", description="This method.")
