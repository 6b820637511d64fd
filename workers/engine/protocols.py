"""What the loop asks of the data and of the task that it is given. It knows neither by name."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from workers.engine.groups import Group

Microbatch = tuple[Tensor, Tensor]  # images uint8 [b, C, H, W], labels int64 [b], where they lie


class Samples(Protocol):
    """One split of a dataset."""

    @property
    def in_memory(self) -> bool:
        """Whether `read` takes next to no time, because nothing has to be decoded."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Microbatch:
        """The samples of these indices, int64 [k], each below len(self), where they lie."""

    def normalised(self, images: Tensor, device: torch.device) -> Tensor:
        """Images uint8 [k, C, H, W] as a model takes them: float32 [k, C, H, W] on `device`."""

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """The samples of these indices as a model takes them, and their labels, int64 [k], on `device`."""


class Dataset(Protocol):
    """The three splits of a dataset. The test split is evaluated and reported, never chosen by."""

    @property
    def train(self) -> Samples: ...
    @property
    def validation(self) -> Samples: ...
    @property
    def test(self) -> Samples: ...


class Task(Protocol):
    """What a model is trained for. Sums are float64 [loss, correct, samples], of this worker's share of the samples."""

    joint: bool  # whether a loss is of all the samples that a group trains an iteration on, or of each microbatch
    draws: bool  # whether `drawn` takes time
    probe_samples: int  # training samples that an evaluation takes to measure accuracy

    def drawn(self, epoch: int, iteration: int, number: int, microbatch: Microbatch) -> Microbatch:
        """What is made of microbatch `number` at random, where it lies: the same for every branch of an epoch."""

    def inputs(self, microbatches: Sequence[Microbatch]) -> tuple[Tensor, Tensor]:
        """What goes into the model for these microbatches, once drawn, and their labels, on the device."""

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, group: Group) -> tuple[Tensor, Tensor]:
        """The mean loss of one forward pass in training, and how many of its samples are correct; both 0-D."""

    def evaluate(self, model: nn.Module, split: Samples, group: Group, *, accuracy: bool) -> Tensor:
        """Sums over a split; where accuracy is not asked for, the count of correct may be NaN."""

    def test(self, model: nn.Module, split: Samples, group: Group) -> Tensor:
        """Sums over a split of which accuracy alone is reported."""
