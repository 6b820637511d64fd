"""Types that specs and records are made of."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Frozen(BaseModel):
    """Strict: no key that is not named here, no value of another type (`true` is not 1)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


MAX_LEARNING_RATES = 64  # in a set
MIN_LEARNING_RATE = 1e-12  # relative sets go no lower: training stands still there, and 0 is no learning rate
MAX_LEARNING_RATE = 1e6
MAX_BATCH = 2**20  # samples

Label = Annotated[str, Field(max_length=50, pattern=r"^[a-z0-9][a-z0-9_.-]*$")]  # of a run
LearningRate = Annotated[float, Field(gt=0, le=MAX_LEARNING_RATE)]
Factor = Annotated[float, Field(gt=0, le=1e6)]


def named(names: Any, union: Any, key: str = "name") -> Any:
    """Read a bare string as a name, or as what else the union is told apart by. The JSON schema has both."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=names | union
    )
