"""Telemetry of layers as it is read (S3, Fig. 2): an epoch of a layer, and its curve over a training."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.store.records import LayerEpoch

Values = Sequence[float | None]  # None: not finite


@dataclass(frozen=True)
class LayerCurve:
    """One layer over the training."""

    layer: str
    steps: list[int]
    lwn: list[float | None]
    lgn: list[float | None]
    lnr: list[float | None]
    trust_ratio: list[float | None]  # empty: the optimizer has none


def curves(epochs: Sequence[LayerEpoch], most_points: int) -> list[LayerCurve]:
    """The layers of one training from the input on, each over its epochs, in their order, with at most `most_points`
    points: every second, third, … sample alone where there are more."""
    by_layer: dict[str, list[LayerEpoch]] = {}
    for one in epochs:
        by_layer.setdefault(one.layer, []).append(one)
    found = []
    for layer, its in by_layer.items():
        stride = max(1, -(-sum(len(one.lwn) for one in its) // most_points))
        values = {
            name: [value for one in its for value in getattr(one, name) or ()][::stride]
            for name in ("steps", "lwn", "lgn", "lnr", "trust_ratio")
        }
        found.append(LayerCurve(layer, **values))
    return found
