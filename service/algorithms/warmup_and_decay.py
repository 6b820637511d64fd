"""Warm-ups and decays of a learning rate, as pure functions.

Epochs and iterations are in numbers of them. A factor is what the learning rate is multiplied by; progress runs from 0,
the first iteration behind the warm-up, to 1, the end of the training.
"""

import math
from collections.abc import Sequence

from service.spec.methods.fixed import WarmupKind

# --- warm-ups --------------------------------------------------------------------------------------------


def warmup_learning_rate(
    kind: WarmupKind, *, base: float, scaled: float, epochs: int, iteration: int, iterations_per_epoch: int
) -> float:
    """The learning rate at `iteration` (from 0) of a warm-up of `epochs` epochs; `base` is the one before scaling.

    constant: base. gradual: in epoch i of K, ((K + 1 - i) / K) base + ((i - 1) / K) scaled (both Signer & Barbier, "How
    to achieve large batch size training of a DNN with SGD by adjusting hyperparameters?", section II). linear:
    iteration by iteration from 0 to scaled (Do et al., "Revisiting LARS for Large Batch Training Generalization of
    Neural Networks", appendix A; Zbontar et al. 2021, arXiv 2103.03230).
    """
    match kind:
        case "constant":
            return base
        case "gradual":
            i = iteration // iterations_per_epoch + 1
            return (epochs + 1 - i) / epochs * base + (i - 1) / epochs * scaled
        case "linear":
            return scaled * iteration / (epochs * iterations_per_epoch)


# --- decays: what a learning rate is multiplied by ---------------------------------------------------------


def polynomial_decay(progress: float, power: float) -> float:
    """The factor of a polynomial decay at `progress`, (1 - progress)^power (You et al. 2017, arXiv 1708.03888)."""
    return float((1 - progress) ** power)


def cosine_decay(progress: float, final: float) -> float:
    """The factor at `progress` of a decay along a cosine from 1 to `final` (Loshchilov & Hutter 2017, arXiv 1608.03983,
    equation 5, without restarts)."""
    return cosine_between(1.0, final, progress)


def cosine_between(start: float, end: float, progress: float) -> float:
    """The value at `progress` of a half cosine that leads from `start`, at progress 0, to `end`, at 1."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))


def step_decay(progress: float, milestones: Sequence[float], factor: float) -> float:
    """The factor of a decay in steps: `factor` to the power of how many `milestones` (from 0 to 1) `progress` has
    reached."""
    return float(factor ** sum(progress >= milestone for milestone in milestones))
