"""DoG, distance over gradients, judged by its averaged iterate (Ivgi et al. 2023, arXiv 2302.12022)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from dog import DoG  # type: ignore[import-untyped]
from torch import nn

SUMS = ("rbar", "G")  # the largest distance from the start, and the sum of squared gradient norms


class AveragedDog(DoG):  # type: ignore[misc]
    """The authors' DoG, judged by the polynomial-decay average of its iterates (Ivgi et al. 2023, arXiv 2302.12022,
    after Shamir & Zhang 2013): after step t, average <- average + (1 + gamma) / (t + gamma) (iterate - average).

    As with Schedule-Free, the parameters hold the iterate after `train()` and the average after `eval()`; the other one
    of the two is `other` of their state. Everything that a step changes is a tensor of the state or a number of the
    parameter group, and exists before the first step, so that a checkpoint has it all.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, weight_decay: float = 0.0, gamma: float = 8.0) -> None:
        """Train `params`, which are one group. `weight_decay` is an L2 penalty, `gamma` that of the average, 8 in the
        paper."""
        super().__init__(params, weight_decay=weight_decay)
        [group] = self.param_groups
        group |= {"train_mode": False, "steps": 0, "gamma": gamma}
        for parameter in group["params"]:
            self.state[parameter] = {"start": parameter.detach().clone(), "other": parameter.detach().clone()}
        first = group["params"][0]
        self.state[first] |= {name: torch.zeros((), dtype=first.dtype, device=first.device) for name in SUMS}

    def _update_group_state(self, group: dict[str, Any], init: list[torch.Tensor]) -> None:
        try:
            super()._update_group_state(group, init)
        except AssertionError:  # G is not a number; with it neither are the weights, and the loss tells of it
            group["eta"] = [group["G"]] * len(group["params"])

    def train(self) -> None:
        """Put the iterate into the parameters."""
        self._change_to(train_mode=True)

    def eval(self) -> None:
        """Put the average of the iterates into the parameters."""
        self._change_to(train_mode=False)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of DoG from the iterate, and take the new one into the average. Returns what `closure` does."""
        [group] = self.param_groups
        assert group["train_mode"], "a step is taken from the iterate: call train() before"
        sums = self.state[group["params"][0]]
        self._first_step = not group["steps"]
        group["init_buffer"] = [self.state[parameter]["start"] for parameter in group["params"]]
        group |= {name: sums[name] for name in SUMS}
        loss = super().step(closure)
        for name in SUMS:
            sums[name].copy_(group[name])
        group["steps"] += 1
        weight = (1 + group["gamma"]) / (group["steps"] + group["gamma"])
        for parameter in group["params"]:
            self.state[parameter]["other"].lerp_(parameter, weight)
        return loss

    @torch.no_grad()
    def _change_to(self, train_mode: bool) -> None:
        [group] = self.param_groups
        if group["train_mode"] != train_mode:
            for parameter in group["params"]:
                other = self.state[parameter]["other"]
                held = parameter.clone()
                parameter.copy_(other)
                other.copy_(held)
            group["train_mode"] = train_mode
