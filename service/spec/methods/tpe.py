"""The tree-structured Parzen estimator (TPE, Bergstra et al. 2011, NeurIPS 24)."""

from typing import Literal

from pydantic import Field

from service.spec.methods.search import TunedMethod


class TpeMethod(TunedMethod):
    """A search of whole trainings that Optuna's TPESampler proposes (Bergstra et al. 2011, NeurIPS 24)."""

    name: Literal["tpe"] = Field("tpe", description="Name of this method.")
