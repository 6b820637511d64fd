"""TVLARS: time-varying LARS, which needs no warm-up (Do et al., "Revisiting LARS for Large Batch Training
Generalization of Neural Networks")."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from workers.optimizers.lars import Lars
from workers.optimizers.layerwise import Numbers, at_most, check_options


class Tvlars(Lars):
    """Time-varying LARS (Do et al., eq. 4 and 5): LARS whose gradients are scaled by `phi` too, in place of a warm-up.

        v <- mu v + phi(t) ratio (g + d w)

    t counts the steps of the parameter, from 0, and is part of its state. phi scales parameters that are not adapted,
    too: it stands for the schedule of the learning rate. `alpha` is the paper's a, `decay` its lambda per step, `delay`
    d_e in steps, `minimum` gamma_min. Norms count as at most `max_norm` (10 in the paper's code); None means no limit.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        alpha: float = 1.0,
        decay: float = 1e-4,
        delay: int = 0,
        minimum: float = 0.0,
        max_norm: float | None = None,
        **lars: Any,
    ) -> None:
        super().__init__(params, lr, **lars)
        own = {"alpha": alpha, "decay": decay, "delay": delay, "minimum": minimum, "max_norm": max_norm}
        self.defaults |= own
        for group in self.param_groups:
            group.update(own | group)  # a group's own options go first
            check_options(group)

    def _trust(self, weight_norms: Numbers, step_norms: Numbers, group: dict[str, Any]) -> Numbers:
        limit = group["max_norm"]
        return super()._trust(at_most(weight_norms, limit), at_most(step_norms, limit), group)

    def _factors(self, parameters: list[Tensor], group: dict[str, Any]) -> Tensor:
        [steps] = self._states(parameters, "step")
        factors = phi(
            torch.stack(steps).double(),
            alpha=group["alpha"],
            decay=group["decay"],
            delay=group["delay"],
            minimum=group["minimum"],
        )
        torch._foreach_add_(steps, 1)
        return factors.to(parameters[0].dtype)


def phi(t: Tensor, *, alpha: float, decay: float, delay: int, minimum: float) -> Tensor:
    """The factor of gradients (Do et al., eq. 4): 1 / (a + exp(lambda (t - d_e))) + gamma_min, falling in t (steps).

    It stays within bounds (eq. 5): gamma_min <= phi <= 1 / (a + exp(-lambda d_e)) + gamma_min.
    """
    return 1 / (alpha + torch.exp(decay * (t - delay))) + minimum
