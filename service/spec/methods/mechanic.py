"""Mechanic, which tunes the scale of an optimizer's steps (Cutkosky, Defazio & Mehta 2023, arXiv 2306.00144)."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.methods.base import WholeBudgetMethod


class MechanicMethod(WholeBudgetMethod):
    """Mechanic (Cutkosky, Defazio & Mehta 2023, arXiv 2306.00144; the package mechanic-pytorch): the job's optimizer at
    learning rate 1 under the job's `lr_schedule`, and a tuner that estimates what its steps are to be multiplied by. It
    takes the whole budget."""

    is_replayable: ClassVar[bool] = False

    name: Literal["mechanic"] = Field("mechanic", description="Name of this method.")
    s_decay: float = Field(
        0.01, ge=0, le=1, description="The tuner's weight decay (lambda of the paper), 0.01 in all of its experiments."
    )
