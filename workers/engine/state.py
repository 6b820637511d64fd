"""What a training step changes (parameters, buffers, optimizer state), and flat in-place copies of it.

Random numbers and the data position are no part of it: both are functions of (seed, epoch, iteration), see
`workers.trainings`, so that restoring the tensors restores everything.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workers.engine.optimizer import is_averaging

WEIGHTS = frozenset({"z", "p0"})  # state of Schedule-Free and Prodigy that begins as a copy of the weights
ALIGNMENT = 16  # bytes; a tensor's view of a flat buffer must begin at a multiple of its item size


class Flat:
    """Copies a fixed list of tensors into one flat byte buffer and back."""

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self.tensors = list(tensors)
        self.device = device
        sizes = [tensor.numel() * tensor.element_size() for tensor in self.tensors]
        padded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
        self._spans = [(sum(padded[:i]), sizes[i]) for i in range(len(sizes))]
        self.nbytes = sum(padded)

    def empty(self) -> Tensor:
        """A new buffer for `save` and `load`: uint8 [nbytes], on the device."""
        return torch.zeros(self.nbytes, dtype=torch.uint8, device=self.device)

    @torch.no_grad()
    def save(self, buffer: Tensor) -> Tensor:
        """Copy the tensors into a buffer as `empty` makes it, and return the buffer."""
        for tensor, view in zip(self.tensors, self._views(buffer), strict=True):
            view.copy_(tensor)
        return buffer

    @torch.no_grad()
    def load(self, buffer: Tensor) -> None:
        """Copy a buffer that `save` has filled back into the tensors."""
        for tensor, view in zip(self.tensors, self._views(buffer), strict=True):
            tensor.copy_(view)

    def digest(self) -> str:
        """The SHA-256 of every byte of the tensors, in hexadecimal: equal states, and only they, have equal digests."""
        return hashlib.sha256(self.save(self.empty()).cpu().numpy().tobytes()).hexdigest()

    def _views(self, buffer: Tensor) -> list[Tensor]:
        return [
            buffer[start : start + size].view(tensor.dtype).view(tensor.shape)
            for tensor, (start, size) in zip(self.tensors, self._spans, strict=True)
        ]


class Average:
    """The mean of a model's weights, and of its running statistics, over several iterations."""

    def __init__(self, model: nn.Module) -> None:
        self._tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
        self._sums = [torch.zeros_like(tensor) for tensor in self._tensors]
        self._count = 0

    def clear(self) -> None:
        """Begin a new mean, of no iteration yet."""
        torch._foreach_zero_(self._sums)
        self._count = 0

    @torch.no_grad()
    def add(self) -> None:
        """Take the model as it is into the mean."""
        torch._foreach_add_(self._sums, self._tensors)
        self._count += 1

    @torch.no_grad()
    def load(self) -> None:
        """Set the model's weights and running statistics to their mean."""
        for tensor, mean in zip(self._tensors, torch._foreach_div(self._sums, self._count), strict=True):
            tensor.copy_(mean)


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors that a training step changes, by name, in a fixed order. The optimizer's state, which torch makes at
    the first step, is made first."""
    materialise(optimizer)
    tensors: dict[str, Tensor] = {f"model.{name}": parameter for name, parameter in model.named_parameters()}
    tensors |= {f"model.{name}": buffer for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters():
        for key, value in sorted(optimizer.state[parameter].items()):
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = value
    return tensors


@torch.no_grad()
def materialise(optimizer: torch.optim.Optimizer) -> None:
    """Create the optimizer's lazy state as it is before the first step, without changing a parameter.

    A step at learning rate 0 with zero gradients creates it; what that step put there is then set back to zero, but for
    copies of the weights, and what it counted is undone. Does nothing where every parameter has its state already.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if all(optimizer.state.get(parameter) for parameter in parameters):
        return
    groups = [dict(group) for group in optimizer.param_groups]
    if averaging := is_averaging(optimizer):
        optimizer.train()  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if averaging:
        optimizer.eval()  # type: ignore[attr-defined]
    for group, before_step in zip(optimizer.param_groups, groups, strict=True):
        group.update(before_step)
    for parameter in parameters:
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and key not in WEIGHTS:
                value.zero_()
