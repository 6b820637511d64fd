"""Groups of workers that train together; nothing else uses torch.distributed but what makes the world
(workers/torch_group.py, workers/local.py).

The world is every worker of the training. For a Pre-train the world may be split into groups that train different
branches side by side (STPT, Yamada et al., Fig. 1). Everything works unchanged for one worker, which needs no
torch.distributed.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# With each other: the first worker may have to wait for a full disk, however long. A worker that dies is noticed at
# once by its closed connections, and one that hangs by the controller: torch needs no timeout to find that out.
PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Group:
    """Workers that train one model together: `ranks` of the world, this worker at `position` among them."""

    number: int
    ranks: tuple[int, ...]
    position: int
    handle: "dist.ProcessGroup | None" = field(repr=False)

    @property
    def size(self) -> int:
        """How many workers the group has."""
        return len(self.ranks)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the group, in place, and return it; the sum is the same on every worker."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.handle)
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the group as a new tensor, through which the gradients of every worker's loss reach
        every worker."""
        return cast(Tensor, _Sum.apply(tensor, self)) if self.size > 1 else tensor

    def broadcast_(self, tensor: Tensor, source: int) -> Tensor:
        """Copy a tensor from the worker with world rank `source` to the others, in place, and return it."""
        if self.size > 1:
            dist.broadcast(tensor, src=source, group=self.handle)
        return tensor

    def broadcast_text(self, text: str, source: int, device: torch.device) -> str:
        """The text that the worker with world rank `source` has given; it travels over `device`."""
        if self.size == 1:
            return text
        sent = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(device)
        size = self.broadcast_(torch.tensor([len(sent)], device=device), source).item()
        received = sent if dist.get_rank() == source else torch.empty(int(size), dtype=torch.uint8, device=device)
        return bytes(self.broadcast_(received, source).cpu().numpy()).decode()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of the parameters over the group in one flat all-reduce; a worker that has none adds
        zeros."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = self.sum_(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


class _Sum(torch.autograd.Function):
    """The sum over a group as a differentiable function; torch.distributed.nn has one that is deprecated."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.sum_(tensor.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.sum_(gradient.contiguous().clone()), None


class Workers:
    """All workers of the training, seen from this one: its rank, its device, and the groups that it belongs to."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        distributed = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if distributed else 0
        self.size = dist.get_world_size() if distributed else 1
        handle = cast(dist.ProcessGroup, dist.group.WORLD) if distributed else None
        self.world = Group(0, tuple(range(self.size)), self.rank, handle)
        self._splits: dict[int, Group] = {1: self.world}

    def split(self, count: int) -> Group:
        """This worker's group when the world falls into `count` groups: rank r belongs to group r mod count.

        Every worker must ask for the same counts in the same order: groups are made at the first asking.
        """
        if count not in self._splits:
            members = group_members(self.size, count)
            handles = [
                dist.new_group(list(ranks), timeout=PATIENCE) for ranks in members
            ]  # every worker takes part in making each
            mine = self.rank % count
            handle = cast(dist.ProcessGroup, handles[mine])
            self._splits[count] = Group(mine, members[mine], members[mine].index(self.rank), handle)
        return self._splits[count]

    def replicate(self, model: nn.Module) -> nn.Module:
        """The model wrapped for synchronous data-parallel training by the world (DistributedDataParallel), or for one
        worker the model itself."""
        if self.size == 1:
            return model
        # Looking for unused parameters keeps DDP from rearranging its buckets after its first step. Rearranged, three
        # workers or more would add in another order than a resumed training, whose DDP is new: on CPU they must agree.
        fixed_buckets = self.device.type == "cpu"
        # Buffers travel once at the end of a phase, not at every step: in training mode nothing reads them.
        with warnings.catch_warnings():  # torch 2.15 has a new name for broadcast_buffers, which 2.11 does not know
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=fixed_buckets)


def group_members(world_size: int, count: int) -> Sequence[tuple[int, ...]]:
    """The world ranks of each of `count` groups, whose sizes differ by one at most."""
    return [tuple(range(number, world_size, count)) for number in range(count)]
