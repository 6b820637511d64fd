"""What the layer-wise optimizers LARS, LAMB and TVLARS share: trust ratios, and three ways to take a step.

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
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

CHUNK = 2**17  # elements: chunks of w and g stay in a core's cache while three products are taken of them

NOT_NEGATIVE = ("lr", "momentum", "weight_decay", "eps", "alpha", "decay", "delay", "minimum")  # NaN is neither
POSITIVE = ("trust_coefficient", "max_norm", "max_trust_ratio")  # or None: no limit

Way = Literal["each", "foreach", "fused"]
Numbers = TypeVar("Numbers", float, Tensor)  # of one layer, or of several


class LayerWise(Optimizer, ABC):
    """An optimizer whose steps are scaled, layer by layer, by trust ratios."""

    _ratios: Sequence[tuple[list[Tensor], Tensor]] = ()  # of the last step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of every parameter that has a gradient; return what `closure` does, where there is one."""
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
        """Add a group of parameters, as torch's optimizers do. Raises ValueError where an option of it is out of
        range."""
        check_options(self.defaults | param_group)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Move the state to the device and the memory order of the parameters. `load_state_dict` ends here, and torch's
        leaves `step` on its old device and all in its old memory order."""
        super().__setstate__(state)
        for p in (p for group in self.param_groups for p in group["params"]):
            loaded = self.state.get(p, {})
            for name, tensor in loaded.items():
                loaded[name] = tensor.to(p.device)
                if tensor.shape == p.shape and tensor.stride() != p.stride():
                    loaded[name] = torch.empty_like(p).copy_(tensor)

    def trust_ratios(self) -> list[Tensor]:
        """The trust ratios of the last step, 0-D tensors in the order of the parameters; 1 where nothing was adapted.

        They stay on the device: reading them is up to the caller.
        """
        used = {p: ratio for parameters, ratios in self._ratios for p, ratio in zip(parameters, ratios, strict=True)}
        return [used[p] if p in used else p.new_ones(()) for group in self.param_groups for p in group["params"]]

    @abstractmethod
    def _update(self, parameters: list[Tensor], group: dict[str, Any], adapted: bool) -> Tensor:
        """Take one step of the parameters, all with gradients, all adapted or all not, all of one type.

        Returns their trust ratios, [len(parameters)].
        """

    @abstractmethod
    def _trust(self, weight_norms: Numbers, step_norms: Numbers, group: dict[str, Any]) -> Numbers:
        """The trust ratios of layers by the norms of their weights and of their steps, where none is zero."""

    def _ratio(self, weight: Tensor, step: Tensor, decay: float, way: Way, group: dict[str, Any]) -> float:
        """The trust ratio of a layer with weights w and step u + d w."""
        weight_norm, step_norm = (_norms_fused if way == "fused" else _norms_each)(weight, step, decay)
        return self._trust(weight_norm, step_norm, group) if weight_norm > 0 and step_norm > 0 else 1.0

    def _ratios_foreach(self, weights: list[Tensor], steps: list[Tensor], group: dict[str, Any]) -> Tensor:
        weight_norms, step_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, steps))
        ratios = self._trust(weight_norms, step_norms, group)
        return torch.where((weight_norms > 0) & (step_norms > 0), ratios, 1.0)

    def _states(self, parameters: list[Tensor], *names: str) -> list[list[Tensor]]:
        """The state tensors of these names, each for every parameter, zero at first. `step` is 0-D, the others have the
        shape of the parameter."""
        states = [self.state[p] for p in parameters]
        for p, state in zip(parameters, states, strict=True):
            for name in names:
                if name not in state:
                    state[name] = torch.zeros((), device=p.device) if name == "step" else torch.zeros_like(p)
        return [[state[name] for state in states] for name in names]


def check_options(group: dict[str, Any]) -> None:
    """Raise ValueError where an option of a parameter group is out of range.

    A tensor on the device `meta` has no value that could be checked.
    """
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


def way_of(foreach: bool | None, parameters: list[Tensor], *others: list[Tensor]) -> Way:
    """How to take a step of these parameters, `others` being tensors of the same shapes that it reads or writes.

    The fused kernels walk through memory: what they take must be of one order and one type.

    In mid-training `model.to` changes those of weights and gradients alone, and not of what the optimizer keeps.
    """
    if foreach is None:
        dtype = parameters[0].dtype
        if all(t.is_cpu and t.is_contiguous() and t.dtype == dtype for t in chain(parameters, *others)):
            return "fused"
    return "each" if foreach is False else "foreach"


def gradients_of(parameters: list[Tensor]) -> list[Tensor]:
    """The gradients of those of the parameters that have one."""
    return [p.grad for p in parameters if p.grad is not None]


def like(tensors: list[Tensor], lr: Tensor) -> Tensor:
    """A learning rate as the foreach kernels want it: 0-D, on the device and of the type of `tensors`."""
    return lr.to(tensors[0]).view(())


def ones(parameters: list[Tensor]) -> Tensor:
    """Trust ratios of 1, one for each parameter, [len(parameters)]."""
    return parameters[0].new_ones(len(parameters))


def at_most(values: Numbers, limit: float | None) -> Numbers:
    """The values, none of them above the limit; unchanged where that is None."""
    if limit is None:
        return values
    return values.clamp(max=limit) if isinstance(values, Tensor) else min(values, limit)


def _norms_each(weight: Tensor, step: Tensor, decay: float) -> tuple[float, float]:
    """The norms ||w|| and ||u + d w|| of one layer, w being `weight`, u `step` and d `decay`."""
    return weight.norm().item(), (step + decay * weight).norm().item()


def _norms_fused(weight: Tensor, step: Tensor, decay: float) -> tuple[float, float]:
    """The norms ||w|| and ||u + d w|| of one layer, by ||u + d w||^2 = ||u||^2 + 2 d <u, w> + d^2 ||w||^2: this writes
    nothing, and reads memory once."""
    if not decay:
        return weight.norm().item(), step.norm().item()
    ww = uw = uu = 0.0
    for w, u in zip(weight.view(-1).split(CHUNK), step.view(-1).split(CHUNK), strict=True):
        ww += torch.dot(w, w).item()
        uw += torch.dot(u, w).item()
        uu += torch.dot(u, u).item()
    return math.sqrt(ww), math.sqrt(max(uu + 2 * decay * uw + decay**2 * ww, 0.0))


def fused_sgd(
    weights: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
) -> None:
    """Take a step of torch.optim.SGD by its kernel for CPUs, in place."""
    torch._fused_sgd_(
        weights, gradients, momenta,
        lr=lr, weight_decay=weight_decay, momentum=momentum, dampening=dampening,
        nesterov=False, maximize=False, is_first_step=False,
    )  # fmt: skip
