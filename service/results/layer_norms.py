"""Telemetry of layers as curves over a training (Do et al., "Revisiting LARS for Large Batch Training Generalization of
Neural Networks", Fig. 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.store.records import LayerEpoch


@dataclass(frozen=True)
class LayerCurve:
    """The telemetry of one layer over a training: the sampled steps, and for each the norm of the weights (lwn), the
    norm of the gradient (lgn), their ratio (lnr) and the trust ratio; None where a value was not finite."""

    layer: str
    steps: list[int]
    lwn: list[float | None]
    lgn: list[float | None]
    lnr: list[float | None]
    trust_ratio: list[float | None]  # empty: the optimizer has none


def curves(epochs: Sequence[LayerEpoch], most_points: int) -> list[LayerCurve]:
    """Join the epochs of each layer of one training, given in order, into curves, the layers from the input on. A curve
    has at most `most_points` points: every second, third, … sample alone where there are more."""
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
