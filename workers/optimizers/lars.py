"""LARS: layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from workers.optimizers.layerwise import LayerWise, Numbers, fused_sgd, gradients_of, like, ones, way_of


class Lars(LayerWise):
    """Layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888), in the form of the code of TVLARS (Do et
    al.):

        ratio = eta ||w|| / (||g + d w|| + eps)
        v <- mu v + ratio (g + d w)
        w <- w - lr v

    `lr` is the learning rate, a number or a tensor of one; `momentum` is mu, `weight_decay` is d, `trust_coefficient`
    is eta. Where a parameter is not adapted, this is torch.optim.SGD.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        adapt_1d: bool = False,
        foreach: bool | None = None,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eps": eps}
        super().__init__(
            params, {**options, "trust_coefficient": trust_coefficient, "adapt_1d": adapt_1d, "foreach": foreach}
        )

    def _update(self, parameters: list[Tensor], group: dict[str, Any], adapted: bool) -> Tensor:
        gradients, [momenta] = gradients_of(parameters), self._states(parameters, "momentum_buffer")
        way = way_of(group["foreach"], parameters, gradients, momenta)
        momentum, decay = group["momentum"], group["weight_decay"] if adapted else 0.0
        factors = self._factors(parameters, group)
        if way == "foreach":
            if decay:
                gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
            ratios = self._ratios_foreach(parameters, gradients, group) if adapted else ones(parameters)
            torch._foreach_mul_(momenta, momentum)
            torch._foreach_addcmul_(momenta, gradients, list((ratios * factors).unbind()))
            if isinstance(lr := group["lr"], Tensor):
                torch._foreach_sub_(parameters, torch._foreach_mul(momenta, like(momenta, lr)))
            else:
                torch._foreach_add_(parameters, momenta, alpha=-lr)
            return ratios
        lr, used = float(group["lr"]), []
        for w, g, v, factor in zip(parameters, gradients, momenta, factors.tolist(), strict=True):
            ratio = self._ratio(w, g, decay, way, group) if adapted else 1.0
            used.append(ratio)
            scale = ratio * factor
            if way == "each":
                v.mul_(momentum).add_(g + decay * w, alpha=scale)
                w.add_(v, alpha=-lr)
            elif momentum:  # torch's SGD with a dampening
                fused_sgd([w], [g], [v], lr=lr, momentum=momentum, weight_decay=decay, dampening=1 - scale)
            else:  # it has none without momentum
                fused_sgd([w], [g], [], lr=lr * scale, weight_decay=decay)
        return parameters[0].new_tensor(used)

    def _trust(self, weight_norms: Numbers, step_norms: Numbers, group: dict[str, Any]) -> Numbers:
        ratios: Numbers = group["trust_coefficient"] * weight_norms / (step_norms + group["eps"])
        return ratios

    def _factors(self, parameters: list[Tensor], group: dict[str, Any]) -> Tensor:
        """What the step of each parameter is multiplied by besides its trust ratio, [len(parameters)]."""
        return ones(parameters)
