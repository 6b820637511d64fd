"""LAMB: layer-wise Adam (You et al. 2020, arXiv 1904.00962)."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from workers.optimizers.layerwise import LayerWise, Numbers, at_most, fused_sgd, gradients_of, like, ones, way_of

MAX_WEIGHT_NORM = 10.0  # LAMB's phi(||w||), as the code of TVLARS, Do et al., has it; LAMB's paper leaves it open


class Lamb(LayerWise):
    """Layer-wise Adam (You et al. 2020, arXiv 1904.00962, v3: without bias correction unless asked):

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        r = m / (sqrt(v) + eps) + d w
        ratio = min(||w||, 10) / ||r||
        w <- w - lr ratio r

    weight_decay: d. With bias_correction m and v in r are divided by 1 - beta^t, t steps from 1. max_trust_ratio: no
    ratio is larger (LAMBC: Fong et al. 2020, arXiv 2011.13584); None: no limit. Without adaptation it is Adam.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        bias_correction: bool = False,
        max_trust_ratio: float | None = None,
        adapt_1d: bool = False,
        foreach: bool | None = None,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt_1d": adapt_1d}
        limits = {"bias_correction": bias_correction, "max_trust_ratio": max_trust_ratio}
        super().__init__(params, {**options, **limits, "foreach": foreach})

    def _update(self, parameters: list[Tensor], group: dict[str, Any], adapted: bool) -> Tensor:
        gradients = gradients_of(parameters)
        firsts, seconds, steps = self._states(parameters, "exp_avg", "exp_avg_sq", "step")
        way = way_of(group["foreach"], parameters, gradients, firsts, seconds)
        torch._foreach_add_(steps, 1)
        decay = group["weight_decay"] if adapted else 0.0
        if way == "foreach":
            updates = _adam_foreach(gradients, firsts, seconds, steps, group)
            if decay:
                torch._foreach_add_(updates, parameters, alpha=decay)
            ratios = self._ratios_foreach(parameters, updates, group) if adapted else ones(parameters)
            if isinstance(lr := group["lr"], Tensor):
                torch._foreach_addcmul_(parameters, updates, list((ratios * like(updates, lr)).unbind()), -1.0)
            else:
                torch._foreach_addcmul_(parameters, updates, list(ratios.unbind()), -lr)
            return ratios
        lr = float(group["lr"])
        if way == "fused" and not adapted:
            _fused_adam(parameters, gradients, firsts, seconds, steps, group, lr=lr)
            return ones(parameters)
        scratch = torch.empty_like(max(parameters, key=Tensor.numel)).view(-1) if way == "fused" else None
        used = []
        for w, g, m, v, step in zip(parameters, gradients, firsts, seconds, steps, strict=True):
            if scratch is None:
                update = _adam_each(g, m, v, step, group)
            else:  # what a learning rate of -1 makes of zeros
                update = scratch[: w.numel()].view(w.shape).zero_()
                _fused_adam([update], [g], [m], [v], [step], group, lr=-1.0)
            ratio = self._ratio(w, update, decay, way, group) if adapted else 1.0
            used.append(ratio)
            if scratch is None:
                w.add_(update + decay * w, alpha=-lr * ratio)
            else:
                fused_sgd([w], [update], [], lr=lr * ratio, weight_decay=decay)
        return parameters[0].new_tensor(used)

    def _trust(self, weight_norms: Numbers, step_norms: Numbers, group: dict[str, Any]) -> Numbers:
        return at_most(at_most(weight_norms, MAX_WEIGHT_NORM) / step_norms, group["max_trust_ratio"])


def _adam_each(gradient: Tensor, first: Tensor, second: Tensor, step: Tensor, group: dict[str, Any]) -> Tensor:
    """Move Adam's moments of one parameter, and return its m / (sqrt(v) + eps)."""
    beta1, beta2 = group["betas"]
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    correction1 = 1 - beta1 ** step.double() if group["bias_correction"] else 1.0
    correction2 = 1 - beta2 ** step.double() if group["bias_correction"] else 1.0
    update: Tensor = (first / correction1) / ((second / correction2).sqrt() + group["eps"])
    return update


def _adam_foreach(
    gradients: list[Tensor], firsts: list[Tensor], seconds: list[Tensor], steps: list[Tensor], group: dict[str, Any]
) -> list[Tensor]:
    """Move Adam's moments of all parameters at once, and return m / (sqrt(v) + eps) of each."""
    beta1, beta2 = group["betas"]
    torch._foreach_lerp_(firsts, gradients, 1 - beta1)
    torch._foreach_mul_(seconds, beta2)
    torch._foreach_addcmul_(seconds, gradients, gradients, 1 - beta2)
    denominators = torch._foreach_sqrt(seconds)
    if group["bias_correction"]:
        t = torch.stack(steps).double()
        torch._foreach_div_(denominators, _scalars((1 - beta2**t).sqrt(), gradients))
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_mul_(denominators, _scalars(1 - beta1**t, gradients))
    else:
        torch._foreach_add_(denominators, group["eps"])
    return list(torch._foreach_div(firsts, denominators))


def _scalars(values: Tensor, like: list[Tensor]) -> list[Tensor]:
    """The values, [n], as n 0-D tensors of the type of `like`, as the foreach kernels want them."""
    return list(values.to(like[0].dtype).unbind())


def _fused_adam(
    weights: list[Tensor],
    gradients: list[Tensor],
    firsts: list[Tensor],
    seconds: list[Tensor],
    steps: list[Tensor],
    group: dict[str, Any],
    *,
    lr: float,
) -> None:
    if not group["bias_correction"]:  # after infinitely many steps there is none
        steps = [torch.tensor(math.inf)] * len(steps)
    beta1, beta2 = group["betas"]
    torch._fused_adam_(
        weights, gradients, firsts, seconds, [], steps,
        lr=lr, beta1=beta1, beta2=beta2, eps=group["eps"], weight_decay=0.0, amsgrad=False, maximize=False,
    )  # fmt: skip
