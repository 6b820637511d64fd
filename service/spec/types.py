"""Types that specs and records are made of: the strict base model, labels, learning rates, and their limits."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Frozen(BaseModel):
    """The base of specs and of what workers report: read-only and strict, with no key that it does not name, no value
    of another type (`true` is not 1), and no number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


MAX_LEARNING_RATES = 64  # in a set
MIN_LEARNING_RATE = 1e-12  # relative sets go no lower: training stands still there, and 0 is no learning rate
MAX_LEARNING_RATE = 1e6
MAX_BATCH = 2**20  # samples

Label = Annotated[str, Field(max_length=50, pattern=r"^[a-z0-9][a-z0-9_.-]*$")]  # of a run
LearningRate = Annotated[float, Field(gt=0, le=MAX_LEARNING_RATE)]
Factor = Annotated[float, Field(gt=0, le=1e6)]


def named(names: Any, union: Any, key: str = "name") -> Any:
    """A validator for a `union` that reads a bare string as {key: string}, so that a name stands for a document; the
    JSON schema has both, `names` being those that may stand alone."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=names | union
    )


def allowed_learning_rate(learning_rate: float, largest: float = MAX_LEARNING_RATE) -> float:
    """The learning rate that may be trained by which is nearest to `learning_rate`: no smaller than MIN_LEARNING_RATE,
    no larger than `largest`."""
    return min(max(learning_rate, MIN_LEARNING_RATE), largest)
