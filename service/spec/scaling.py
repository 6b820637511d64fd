"""How the learning rate, or the momentum in its place, follows the batch (Signer & Barbier, "How to achieve large batch
size training of a DNN with SGD by adjusting hyperparameters?", sections II and IV)."""

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from service.errors import FieldError
from service.spec.optimizer import Optimizer
from service.spec.types import MAX_BATCH, MAX_LEARNING_RATE, Frozen

if TYPE_CHECKING:
    from service.spec.job import JobSpec

Rule = Literal["none", "sqrt", "linear"]


def scale(rule: Rule, *, batch: int, base_batch: int) -> float:
    """The factor by which the learning rate follows the batch (Signer & Barbier, section II): k = batch / base_batch,
    its square root, or 1; batches are in samples."""
    proportion = batch / base_batch
    return {"none": 1.0, "sqrt": math.sqrt(proportion), "linear": proportion}[rule]


def effective_learning_rate(learning_rate: float, momentum: float) -> float:
    """The learning rate with what momentum adds to it, e / (1 - m): what a gradient moves the weights by in all (Signer
    & Barbier, section III)."""
    return learning_rate / (1 - momentum)


def scaled_momentum(momentum: float, factor: float) -> float:
    """The momentum whose effective learning rate is `factor` times that of `momentum`, the learning rate staying as it
    is: m = 1 - (1 - m0) / factor (Signer & Barbier, section IV). Raises ValueError where that is below 0."""
    scaled = 1 - (1 - momentum) / factor
    if scaled < 0:
        raise ValueError(
            f"momentum {momentum:g} cannot follow a factor of {factor:g}: 1 - (1 - {momentum:g}) / {factor:g} = "
            f"{scaled:g} is below 0; the factor must be at least {1 - momentum:g}"
        )
    return scaled


class Scaling(Frozen):
    """How the learning rate, or the momentum in its place, follows the batch (Signer & Barbier, "How to achieve large
    batch size training of a DNN with SGD by adjusting hyperparameters?", sections II and IV)."""

    rule: Rule = Field(
        description="Factor for batch B and base batch b0: none, 1; sqrt, the square root of B/b0; linear, B/b0."
    )
    base_batch_size: int = Field(ge=1, le=MAX_BATCH, description="b0: the batch that the learning rate was chosen for.")
    momentum: bool = Field(
        False,
        description="true: the learning rate stays, and 1 / (1 - momentum) follows the rule; for sgd, lars and tvlars.",
    )

    def factor(self, batch: int) -> float:
        """The factor on the learning rate, or on 1 / (1 - momentum), at a global batch of `batch` samples."""
        return scale(self.rule, batch=batch, base_batch=self.base_batch_size)

    def learning_rate(self, learning_rate: float, batch: int) -> float:
        """The learning rate scaled to a global batch of `batch` samples; it stays where the momentum is scaled."""
        return learning_rate if self.momentum else learning_rate * self.factor(batch)

    def optimizer(self, optimizer: Optimizer, batch: int) -> Optimizer:
        """The optimizer, its momentum scaled to a global batch of `batch` samples where that is asked for. Raises
        ValueError where it has no momentum, or the scaled one is none that it takes."""
        if not self.momentum:
            return optimizer
        momentum = getattr(optimizer, "momentum", None)
        if momentum is None:
            raise ValueError(
                f"{optimizer.name} has no momentum to scale; take sgd, lars or tvlars, or scale the learning rate "
                "(false)"
            )
        scaled = scaled_momentum(momentum, self.factor(batch))
        return type(optimizer).model_validate(optimizer.model_dump() | {"momentum": scaled})

    def errors(self, spec: "JobSpec", field: str, learning_rate: float) -> list[FieldError]:
        """What is wrong with this scaling in a job whose method begins with `learning_rate`; `field` is its place in
        the spec."""
        errors = []
        try:
            self.optimizer(spec.optimizer, spec.global_batch_size)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            errors.append(FieldError(f"{field}.momentum", True, message))
        except ValueError as error:
            errors.append(FieldError(f"{field}.momentum", True, str(error)))
        scaled = self.learning_rate(learning_rate, spec.global_batch_size)
        if not 0 < scaled <= MAX_LEARNING_RATE:
            message = f"the scaled learning rate is {scaled:g}; it must be above 0 and at most 1e6"
            errors.append(FieldError(f"{field}.rule", self.rule, message))
        return errors
