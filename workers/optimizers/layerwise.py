"""Layer-wise optimizers (S3): LARS, LAMB and TVLARS.

Each step of a parameter is scaled by a trust ratio, a multiple of ||w|| over the norm of the step. A "layer" is one
parameter; norms are Euclidean, over all its elements. Parameters of one dimension or less (biases, norms) have ratio 1
and no weight decay unless `adapt_1d` is set, and so has a parameter whose weights or step are all zero the ratio 1.

Every optimizer has three ways to the same numbers. `foreach=False` goes parameter by parameter and is the plainest;
`foreach=True` takes all parameters of a group at once, for GPUs: no number is read back from the device, steps are
counted in tensors and the learning rate may be one, so that a step can be captured in a CUDA graph. `foreach=None`
takes torch's fused kernels where all is contiguous, of one type and on the CPU, and else foreach. On a CPU a step takes
as long as reading memory does: the kernels make an update in one pass, and with the norms of w and g a step of LARS
reads 5 tensors where one of SGD reads 3. Each layer is updated right behind its norms, while small ones are still in
the cache.
"""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

MAX_WEIGHT_NORM = 10.0  # LAMB's phi(||w||), as S3's code has it; the paper leaves it open
CHUNK = 2**17  # elements: chunks of w and g stay in a core's cache while three products are taken of them

NOT_NEGATIVE = ("lr", "momentum", "weight_decay", "eps", "alpha", "decay", "delay", "minimum")  # NaN is neither
POSITIVE = ("trust_coefficient", "max_norm", "max_trust_ratio")  # or None: no limit

Way = Literal["each", "foreach", "fused"]
Numbers = TypeVar("Numbers", float, Tensor)  # of one layer, or of several


class LayerWise(Optimizer, ABC):
    """What the three share."""

    _ratios: Sequence[tuple[list[Tensor], Tensor]] = ()  # of the last step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._ratios = []
        for group in self.param_groups:
            alike: dict[tuple[bool, torch.dtype], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.dim() > 1 or group["adapt_1d"], p.dtype].append(p)
            for (adapted, _), parameters in alike.items():
                self._ratios.append((parameters, self._update(parameters, group, adapted)))
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        _check(self.defaults | param_group)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Where `load_state_dict` ends: torch's leaves `step` on its old device and all in its old memory order."""
        super().__setstate__(state)
        for p in (p for group in self.param_groups for p in group["params"]):
            loaded = self.state.get(p, {})
            for name, tensor in loaded.items():
                loaded[name] = tensor.to(p.device)
                if tensor.shape == p.shape and tensor.stride() != p.stride():
                    loaded[name] = torch.empty_like(p).copy_(tensor)

    def trust_ratios(self) -> list[Tensor]:
        """The trust ratios of the last step, 0-D, in the order of the parameters; 1 where nothing was adapted.

        They stay on the device: reading them is up to the caller.
        """
        used = {p: ratio for parameters, ratios in self._ratios for p, ratio in zip(parameters, ratios, strict=True)}
        return [used[p] if p in used else p.new_ones(()) for group in self.param_groups for p in group["params"]]

    @abstractmethod
    def _update(self, parameters: list[Tensor], group: dict[str, Any], adapted: bool) -> Tensor:
        """One step of the parameters, all with gradients, all adapted or all not, all of one type.

        Returns their trust ratios, one of each.
        """

    @abstractmethod
    def _trust(self, weight_norms: Numbers, step_norms: Numbers, group: dict[str, Any]) -> Numbers:
        """The trust ratios of layers by their norms, where none is zero."""

    def _ratio(self, weight: Tensor, step: Tensor, decay: float, way: Way, group: dict[str, Any]) -> float:
        """The trust ratio of a layer with weights w and step u + d w."""
        weight_norm, step_norm = (_norms_fused if way == "fused" else _norms_each)(weight, step, decay)
        return self._trust(weight_norm, step_norm, group) if weight_norm > 0 and step_norm > 0 else 1.0

    def _ratios_foreach(self, weights: list[Tensor], steps: list[Tensor], group: dict[str, Any]) -> Tensor:
        weight_norms, step_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, steps))
        ratios = self._trust(weight_norms, step_norms, group)
        return torch.where((weight_norms > 0) & (step_norms > 0), ratios, 1.0)

    def _states(self, parameters: list[Tensor], *names: str) -> list[list[Tensor]]:
        """The tensors of these names of every parameter, zero at first. `step` is 0-D, the others have its shape."""
        states = [self.state[p] for p in parameters]
        for p, state in zip(parameters, states, strict=True):
            for name in names:
                if name not in state:
                    state[name] = torch.zeros((), device=p.device) if name == "step" else torch.zeros_like(p)
        return [[state[name] for state in states] for name in names]


class Lars(LayerWise):
    """Layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888), in the form of S3's code:

        ratio = eta ||w|| / (||g + d w|| + eps)
        v <- mu v + ratio (g + d w)
        w <- w - lr v

    lr: learning rate, a number or a tensor of one. momentum: mu. weight_decay: d. trust_coefficient: eta. Without
    adaptation it is torch.optim.SGD.
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
        gradients, [momenta] = _gradients(parameters), self._states(parameters, "momentum_buffer")
        way = _way(group["foreach"], parameters, gradients, momenta)
        momentum, decay = group["momentum"], group["weight_decay"] if adapted else 0.0
        factors = self._factors(parameters, group)
        if way == "foreach":
            if decay:
                gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
            ratios = self._ratios_foreach(parameters, gradients, group) if adapted else _ones(parameters)
            torch._foreach_mul_(momenta, momentum)
            torch._foreach_addcmul_(momenta, gradients, list((ratios * factors).unbind()))
            if isinstance(lr := group["lr"], Tensor):
                torch._foreach_sub_(parameters, torch._foreach_mul(momenta, _like(momenta, lr)))
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
                _fused_sgd([w], [g], [v], lr=lr, momentum=momentum, weight_decay=decay, dampening=1 - scale)
            else:  # it has none without momentum
                _fused_sgd([w], [g], [], lr=lr * scale, weight_decay=decay)
        return parameters[0].new_tensor(used)

    def _trust(self, weight_norms: Numbers, step_norms: Numbers, group: dict[str, Any]) -> Numbers:
        ratios: Numbers = group["trust_coefficient"] * weight_norms / (step_norms + group["eps"])
        return ratios

    def _factors(self, parameters: list[Tensor], group: dict[str, Any]) -> Tensor:
        """What steps are scaled by besides their trust ratios."""
        return _ones(parameters)


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
            _check(group)

    def _trust(self, weight_norms: Numbers, step_norms: Numbers, group: dict[str, Any]) -> Numbers:
        limit = group["max_norm"]
        return super()._trust(_at_most(weight_norms, limit), _at_most(step_norms, limit), group)

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
        gradients = _gradients(parameters)
        firsts, seconds, steps = self._states(parameters, "exp_avg", "exp_avg_sq", "step")
        way = _way(group["foreach"], parameters, gradients, firsts, seconds)
        torch._foreach_add_(steps, 1)
        decay = group["weight_decay"] if adapted else 0.0
        if way == "foreach":
            updates = _adam_foreach(gradients, firsts, seconds, steps, group)
            if decay:
                torch._foreach_add_(updates, parameters, alpha=decay)
            ratios = self._ratios_foreach(parameters, updates, group) if adapted else _ones(parameters)
            if isinstance(lr := group["lr"], Tensor):
                torch._foreach_addcmul_(parameters, updates, list((ratios * _like(updates, lr)).unbind()), -1.0)
            else:
                torch._foreach_addcmul_(parameters, updates, list(ratios.unbind()), -lr)
            return ratios
        lr = float(group["lr"])
        if way == "fused" and not adapted:
            _fused_adam(parameters, gradients, firsts, seconds, steps, group, lr=lr)
            return _ones(parameters)
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
                _fused_sgd([w], [update], [], lr=lr * ratio, weight_decay=decay)
        return parameters[0].new_tensor(used)

    def _trust(self, weight_norms: Numbers, step_norms: Numbers, group: dict[str, Any]) -> Numbers:
        return _at_most(_at_most(weight_norms, MAX_WEIGHT_NORM) / step_norms, group["max_trust_ratio"])


def _adam_each(gradient: Tensor, first: Tensor, second: Tensor, step: Tensor, group: dict[str, Any]) -> Tensor:
    """Moves the moments; m / (sqrt(v) + eps)."""
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


def _check(group: dict[str, Any]) -> None:
    """Raises a ValueError over options out of range. What a tensor on the device `meta` holds cannot be seen."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Invalid lr: a tensor of {lr.numel()} elements; it must have one alone")
    for name in NOT_NEGATIVE:
        value = group.get(name, 0)
        if not (isinstance(value, Tensor) and value.is_meta) and not value >= 0:
            raise ValueError(f"Invalid {name}: {value}; it must be 0 or more")
    for name in POSITIVE:
        value = group.get(name)
        if value is not None and not value > 0:
            raise ValueError(f"Invalid {name}: {value}; it must be more than 0")
    betas = group.get("betas", (0, 0))
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"Invalid betas: {betas}; they must be two, each 0 or more and less than 1")


# --- the ways ----------------------------------------------------------------------------------------


def _way(foreach: bool | None, parameters: list[Tensor], *others: list[Tensor]) -> Way:
    """The fused kernels walk through memory: what they take must be of one order and one type.

    In mid-training `model.to` changes those of weights and gradients alone, and not of what the optimizer keeps.
    """
    if foreach is None:
        dtype = parameters[0].dtype
        if all(t.is_cpu and t.is_contiguous() and t.dtype == dtype for t in chain(parameters, *others)):
            return "fused"
    return "each" if foreach is False else "foreach"


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _scalars(values: Tensor, like: list[Tensor]) -> list[Tensor]:
    return list(values.to(like[0].dtype).unbind())


def _like(tensors: list[Tensor], lr: Tensor) -> Tensor:
    """As the foreach kernels want it: 0-D, of their device and type."""
    return lr.to(tensors[0]).view(())


def _ones(parameters: list[Tensor]) -> Tensor:
    return parameters[0].new_ones(len(parameters))


def _at_most(values: Numbers, limit: float | None) -> Numbers:
    if limit is None:
        return values
    return values.clamp(max=limit) if isinstance(values, Tensor) else min(values, limit)


def _norms_each(weight: Tensor, step: Tensor, decay: float) -> tuple[float, float]:
    """||w|| and ||u + d w||."""
    return weight.norm().item(), (step + decay * weight).norm().item()


def _norms_fused(weight: Tensor, step: Tensor, decay: float) -> tuple[float, float]:
    """By ||u + d w||^2 = ||u||^2 + 2 d <u, w> + d^2 ||w||^2: writes nothing, and reads memory once."""
    if not decay:
        return weight.norm().item(), step.norm().item()
    ww = uw = uu = 0.0
    for w, u in zip(weight.view(-1).split(CHUNK), step.view(-1).split(CHUNK), strict=True):
        ww += torch.dot(w, w).item()
        uw += torch.dot(u, w).item()
        uu += torch.dot(u, u).item()
    return math.sqrt(ww), math.sqrt(max(uu + 2 * decay * uw + decay**2 * ww, 0.0))


def _fused_sgd(
    weights: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
) -> None:
    torch._fused_sgd_(
        weights, gradients, momenta,
        lr=lr, weight_decay=weight_decay, momentum=momentum, dampening=dampening,
        nesterov=False, maximize=False, is_first_step=False,
    )  # fmt: skip


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
