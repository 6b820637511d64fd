"""Layer-wise optimizers (S3): LARS, LAMB and TVLARS.

Each step of a parameter is scaled by a trust ratio, a multiple of ||w|| over the norm of the step. A "layer" is one
parameter; norms are Euclidean, over all its elements. Parameters of one dimension or less (biases, norms) have ratio 1
and no weight decay unless `adapt_1d` is set, and so has a parameter whose weights or step are all zero the ratio 1.

Every optimizer has three ways to the same numbers. `foreach=False` goes parameter by parameter and is the plainest;
`foreach=True` takes all parameters of a group at once, for GPUs: no number is read back from the device, and steps are
counted in tensors, so that a step can be captured in a CUDA graph. `foreach=None` takes torch's fused kernels where
all is contiguous and on the CPU, and else foreach. On a CPU a step takes as long as reading memory does: the kernels
make an update in one pass, and with the norms of w and g a step of LARS reads 5 tensors where one of SGD reads 3.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

MAX_WEIGHT_NORM = 10.0  # LAMB's phi(||w||), as S3's code has it; the paper leaves it open
CHUNK = 2**16  # elements: chunks of w and g stay in a core's cache while three products are taken of them

Way = Literal["each", "foreach", "fused"]


class LayerWise(Optimizer):
    """What the three share. `_update` makes one step of parameters that are all adapted, or all not."""

    _ratios: Sequence[tuple[list[Tensor], Tensor]] = ()  # of the last step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._ratios = []
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            for adapted in (True, False):
                parameters = [p for p in trained if (p.dim() > 1 or group["adapt_1d"]) is adapted]
                if parameters:
                    self._ratios.append((parameters, self._update(parameters, group, adapted)))
        return loss

    def trust_ratios(self) -> list[Tensor]:
        """The trust ratios of the last step, 0-D, in the order of the parameters; 1 where nothing was adapted.

        They stay on the device: reading them is up to the caller.
        """
        used = {p: ratio for parameters, ratios in self._ratios for p, ratio in zip(parameters, ratios, strict=True)}
        return [used[p] if p in used else p.new_ones(()) for group in self.param_groups for p in group["params"]]

    def _update(self, parameters: list[Tensor], group: dict[str, Any], adapted: bool) -> Tensor:
        """One step of the parameters, all with gradients; their trust ratios [len(parameters)]."""
        raise NotImplementedError

    def _states(self, parameters: list[Tensor], *names: str) -> list[list[Tensor]]:
        """The tensors of these names of every parameter, zero at first. `step` is 0-D, the others have its shape."""
        for p in parameters:
            for name in names:
                if name not in self.state[p]:
                    zero = torch.zeros((), device=p.device) if name == "step" else torch.zeros_like(p)
                    self.state[p][name] = zero
        return [[self.state[p][name] for p in parameters] for name in names]


class Lars(LayerWise):
    """Layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888), in the form of S3's code:

        ratio = eta ||w|| / (||g + d w|| + eps)
        v <- mu v + ratio (g + d w)
        w <- w - lr v

    lr: learning rate. momentum: mu. weight_decay: d. trust_coefficient: eta. Without adaptation it is torch.optim.SGD.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        adapt_1d: bool = False,
        foreach: bool | None = None,
        **more: Any,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eps": eps, **more}
        super().__init__(
            params, {**options, "trust_coefficient": trust_coefficient, "adapt_1d": adapt_1d, "foreach": foreach}
        )

    def _update(self, parameters: list[Tensor], group: dict[str, Any], adapted: bool) -> Tensor:
        way, gradients = _way(parameters, group["foreach"]), _gradients(parameters)
        [momenta] = self._states(parameters, "momentum_buffer")
        decay = group["weight_decay"] if adapted else 0.0
        if way == "foreach" and decay:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
            decay = 0.0
        if adapted:
            ratios = self._trust(*_NORMS[way](parameters, gradients, decay), group)
        else:
            ratios = parameters[0].new_ones(len(parameters))
        _SGD[way](parameters, gradients, momenta, ratios * self._factors(parameters, group), decay, group)
        return ratios

    def _trust(self, weight_norms: Tensor, gradient_norms: Tensor, group: dict[str, Any]) -> Tensor:
        ratios = group["trust_coefficient"] * weight_norms / (gradient_norms + group["eps"])
        return _unless_zero(ratios, weight_norms, gradient_norms)

    def _factors(self, parameters: list[Tensor], group: dict[str, Any]) -> Tensor | float:
        """What a step is scaled by besides the trust ratio."""
        return 1.0


class Tvlars(Lars):
    """Time-varying LARS (S3, eq. 4 and 5): LARS whose gradients are scaled by `phi` as well, in place of a warm-up.

        v <- mu v + phi(t) ratio (g + d w)

    t counts the steps of the parameter, from 0, and is part of its state. phi scales parameters that are not adapted,
    too: it stands for the schedule of the learning rate. alpha: S3's a. decay: its lambda, a step. delay: d_e, in
    steps. minimum: gamma_min. max_norm: norms count as at most this (S3's code: 10); None: no limit.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        alpha: float = 1.0,
        decay: float = 1e-4,
        delay: int = 0,
        minimum: float = 0.0,
        max_norm: float | None = None,
        **lars: Any,
    ) -> None:
        super().__init__(params, lr, alpha=alpha, decay=decay, delay=delay, minimum=minimum, max_norm=max_norm, **lars)

    def _trust(self, weight_norms: Tensor, gradient_norms: Tensor, group: dict[str, Any]) -> Tensor:
        if (limit := group["max_norm"]) is not None:
            weight_norms, gradient_norms = weight_norms.clamp(max=limit), gradient_norms.clamp(max=limit)
        return super()._trust(weight_norms, gradient_norms, group)

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
    """S3, eq. 4: 1 / (a + exp(lambda (t - d_e))) + gamma_min, falling in t (steps).

    S3, eq. 5: gamma_min <= phi <= 1 / (a + exp(-lambda d_e)) + gamma_min.
    """
    return 1 / (alpha + torch.exp(decay * (t - delay))) + minimum


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
        lr: float,
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
        way, gradients = _way(parameters, group["foreach"]), _gradients(parameters)
        firsts, seconds, steps = self._states(parameters, "exp_avg", "exp_avg_sq", "step")
        torch._foreach_add_(steps, 1)
        if way == "fused":
            return self._fused(parameters, gradients, firsts, seconds, steps, group, adapted)
        beta1, beta2 = group["betas"]
        if way == "foreach":
            torch._foreach_lerp_(firsts, gradients, 1 - beta1)
            torch._foreach_mul_(seconds, beta2)
            torch._foreach_addcmul_(seconds, gradients, gradients, 1 - beta2)
            denominators = torch._foreach_sqrt(seconds)
            if group["bias_correction"]:
                t = torch.stack(steps).double()
                torch._foreach_div_(denominators, _scalars((1 - beta2**t).sqrt(), parameters))
                torch._foreach_add_(denominators, group["eps"])
                torch._foreach_mul_(denominators, _scalars(1 - beta1**t, parameters))
            else:
                torch._foreach_add_(denominators, group["eps"])
            updates = torch._foreach_div(firsts, denominators)
            if adapted and group["weight_decay"]:
                torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            ratios = self._trust(parameters, updates, group, adapted)
            torch._foreach_addcmul_(parameters, updates, list(ratios.unbind()), -group["lr"])
            return ratios
        ratios = parameters[0].new_ones(len(parameters))
        for number, (w, g, m, v, step) in enumerate(zip(parameters, gradients, firsts, seconds, steps, strict=True)):
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            correction1 = 1 - beta1 ** step.double() if group["bias_correction"] else 1.0
            correction2 = 1 - beta2 ** step.double() if group["bias_correction"] else 1.0
            update = (m / correction1) / ((v / correction2).sqrt() + group["eps"])
            if adapted:
                update += group["weight_decay"] * w
            ratios[number] = self._trust([w], [update], group, adapted)[0]
            w -= group["lr"] * ratios[number] * update
        return ratios

    def _fused(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        firsts: list[Tensor],
        seconds: list[Tensor],
        steps: list[Tensor],
        group: dict[str, Any],
        adapted: bool,
    ) -> Tensor:
        """torch's AdamW on a copy of w: w (1 - lr d') - lr m / (sqrt(v) + eps) is r, with lr = -1 and d' = d - 1.

        After infinitely many steps its bias corrections are 1.
        """
        beta1, beta2 = group["betas"]
        decay = group["weight_decay"] if adapted else 0.0
        scratch = torch.empty_like(max(parameters, key=Tensor.numel)).view(-1)
        endless = torch.tensor(math.inf)
        ratios = []
        for w, g, m, v, step in zip(parameters, gradients, firsts, seconds, steps, strict=True):
            update = scratch[: w.numel()].view(w.shape).copy_(w)
            torch._fused_adamw_(
                [update], [g], [m], [v], [], [step if group["bias_correction"] else endless],
                lr=-1.0, beta1=beta1, beta2=beta2, weight_decay=decay - 1, eps=group["eps"],
                amsgrad=False, maximize=False,
            )  # fmt: skip
            ratio = self._trust([w], [update], group, adapted)
            w.addcmul_(update, ratio[0], value=-group["lr"])
            ratios.append(ratio)
        return torch.cat(ratios)

    def _trust(
        self,
        parameters: list[Tensor],
        updates: tuple[Tensor, ...] | list[Tensor],
        group: dict[str, Any],
        adapted: bool,
    ) -> Tensor:
        if not adapted:
            return parameters[0].new_ones(len(parameters))
        weight_norms, update_norms = _norms(parameters), _norms(updates)
        ratios = _unless_zero(weight_norms.clamp(max=MAX_WEIGHT_NORM) / update_norms, weight_norms, update_norms)
        limit = group["max_trust_ratio"]
        return ratios if limit is None else ratios.clamp(max=limit)


# --- the ways ----------------------------------------------------------------------------------------


def _way(parameters: list[Tensor], foreach: bool | None) -> Way:
    if foreach is None and all(
        t.device.type == "cpu" and t.is_contiguous() for p in parameters for t in (p, p.grad) if t is not None
    ):
        return "fused"
    return "each" if foreach is False else "foreach"


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _scalars(values: Tensor, like: list[Tensor]) -> list[Tensor]:
    return list(values.to(like[0].dtype).unbind())


def _unless_zero(ratios: Tensor, weight_norms: Tensor, update_norms: Tensor) -> Tensor:
    return torch.where((weight_norms > 0) & (update_norms > 0), ratios, 1.0)


def _norms(tensors: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))


def _norms_each(weights: list[Tensor], gradients: list[Tensor], decay: float) -> tuple[Tensor, Tensor]:
    """||w|| and ||g + d w|| of every parameter."""
    pairs = [(w.norm(), (g + decay * w).norm()) for w, g in zip(weights, gradients, strict=True)]
    return torch.stack([w for w, _ in pairs]), torch.stack([g for _, g in pairs])


def _norms_foreach(weights: list[Tensor], gradients: list[Tensor], decay: float) -> tuple[Tensor, Tensor]:
    assert not decay, "it is in the gradients"
    return _norms(weights), _norms(gradients)


def _norms_fused(weights: list[Tensor], gradients: list[Tensor], decay: float) -> tuple[Tensor, Tensor]:
    """By ||g + d w||^2 = ||g||^2 + 2 d <g, w> + d^2 ||w||^2: writes nothing, and reads memory once."""
    if not decay:
        return _norms(weights), _norms(gradients)
    products: list[Tensor] = []  # of every chunk: <w, w>, <g, g>, <g, w>
    owners: list[int] = []
    for number, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        for w, g in zip(weight.view(-1).split(CHUNK), gradient.view(-1).split(CHUNK), strict=True):
            products += torch.dot(w, w), torch.dot(g, g), torch.dot(g, w)
            owners.append(number)
    sums = torch.zeros(len(weights), 3, dtype=torch.float64)
    sums.index_add_(0, torch.tensor(owners), torch.stack(products).double().view(-1, 3))
    ww, gg, gw = sums.unbind(1)
    dtype = weights[0].dtype
    return ww.sqrt().to(dtype), (gg + 2 * decay * gw + decay**2 * ww).clamp(min=0).sqrt().to(dtype)


def _sgd_each(
    weights: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    scales: Tensor,
    decay: float,
    group: dict[str, Any],
) -> None:
    """v <- mu v + scale (g + d w); w <- w - lr v."""
    for w, g, v, scale in zip(weights, gradients, momenta, scales, strict=True):
        v.mul_(group["momentum"]).add_(scale * (g + decay * w))
        w -= group["lr"] * v


def _sgd_foreach(
    weights: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    scales: Tensor,
    decay: float,
    group: dict[str, Any],
) -> None:
    assert not decay, "it is in the gradients"
    torch._foreach_mul_(momenta, group["momentum"])
    torch._foreach_addcmul_(momenta, gradients, list(scales.unbind()))
    torch._foreach_add_(weights, momenta, alpha=-group["lr"])


def _sgd_fused(
    weights: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    scales: Tensor,
    decay: float,
    group: dict[str, Any],
) -> None:
    """It is torch's SGD with a dampening of 1 - scale."""
    for w, g, v, scale in zip(weights, gradients, momenta, scales.tolist(), strict=True):
        torch._fused_sgd_(
            [w], [g], [v],
            lr=group["lr"], momentum=group["momentum"], weight_decay=decay, dampening=1 - scale,
            nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip


_NORMS = {"each": _norms_each, "foreach": _norms_foreach, "fused": _norms_fused}
_SGD = {"each": _sgd_each, "foreach": _sgd_foreach, "fused": _sgd_fused}
