"""Answers with telemetry of the layers of a training."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from service.wire.answers.base import JOB_ID, Answer, example

# An example: two samples of LARS's second epoch.
_LAYER = {
    "label": "stpt",
    "method": "stpt",
    "trial": 1,
    "epoch": 2,
    "attempt": 1,
    "layer": "0.weight",
    "steps": [20, 30],
    "lwn": [1.84211, 1.85023],
    "lgn": [0.921055, 0.462558],
    "lnr": [2.0, 4.0],
    "trust_ratio": [0.002, 0.004],
}


class LayerEpoch(Answer):
    """The telemetry of one layer in one epoch: a number for each sampled step, null where it was not finite."""

    model_config = example(_LAYER)

    label: str = Field(description="Label of its run.")
    method: str = Field(description="Name of its method.")
    trial: int = Field(description="Number of its trial in the run, from 1.")
    epoch: int = Field(description="Number of the epoch, from 1.")
    attempt: int = Field(description="Number of the attempt that recorded the epoch.")
    layer: str = Field(description="Name of the parameter tensor.")
    steps: list[int] = Field(description="How many steps the training had taken, from 0; of losing branches none.")
    lwn: list[float | None] = Field(description="Norm of the weights, ||w||.")
    lgn: list[float | None] = Field(description="Norm of the gradient, ||g||, of the next step.")
    lnr: list[float | None] = Field(description="||w|| / ||g||; null also where the gradient was zero.")
    trust_ratio: list[float | None] | None = Field(
        description="Trust ratio that the optimizer took the next step with; null: it has none."
    )

    def table_rows(self) -> Iterator[dict[str, Any]]:
        """The rows that the layer's telemetry takes in a table: one for each sampled step."""
        same = {name: getattr(self, name) for name in ("label", "method", "trial", "epoch", "attempt", "layer")}
        ratios: Sequence[float | None] = self.trust_ratio or [None] * len(self.steps)
        for step, lwn, lgn, lnr, ratio in zip(self.steps, self.lwn, self.lgn, self.lnr, ratios, strict=True):
            yield {**same, "step": step, "lwn": lwn, "lgn": lgn, "lnr": lnr, "trust_ratio": ratio}


LAYER_COLUMNS = tuple(next(LayerEpoch.model_validate(_LAYER).table_rows()))


class LayerPage(Answer):
    """A page of the telemetry of a job, ordered by run, trial, epoch and layer, the layers from the input on."""

    model_config = example({"job_id": JOB_ID, "items": [_LAYER], "next_cursor": None})

    job_id: str = Field(description="Id of the job.")
    items: list[LayerEpoch] = Field(description="The layers of this page.")
    next_cursor: str | None = Field(description="Goes into `cursor` for the next page; null: this is the last one.")
