"""What the training loop asks of the data and of the task that it is given; it knows no dataset and no task by name."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from workers.engine.groups import Group

Microbatch = tuple[Tensor, Tensor]  # images uint8 [b, C, H, W], labels int64 [b], where they lie


class Samples(Protocol):
    """One split of a dataset, as the training loop reads it."""

    @property
    def in_memory(self) -> bool:
        """Whether `read` takes next to no time, because nothing has to be decoded."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Microbatch:
        """The samples of these indices, int64 [k], each below len(self): images uint8 [k, C, H, W] and labels int64
        [k], on the device where the split lies."""

    def normalised(self, images: Tensor, device: torch.device) -> Tensor:
        """Images uint8 [k, C, H, W] as a model takes them: float32 [k, C, H, W] on `device`."""

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """The samples of these indices, int64 [k], as a model takes them, and their labels, int64 [k], both on
        `device`."""


class Dataset(Protocol):
    """The three splits of a dataset. The test split is evaluated and reported, never chosen by."""

    @property
    def train(self) -> Samples:
        """The split that is trained on."""

    @property
    def validation(self) -> Samples:
        """The split that choices are made by."""

    @property
    def test(self) -> Samples:
        """The split that is evaluated and reported, never chosen by."""


class Task(Protocol):
    """What a model is trained for: how microbatches become a loss, and what is evaluated.

    The sums that evaluations return are float64 [loss, correct, samples], over this worker's share of the samples.
    """

    joint: bool  # whether a loss is of all the samples that a group trains an iteration on, or of each microbatch
    draws: bool  # whether `drawn` takes time
    probe_samples: int  # training samples that an evaluation takes to measure accuracy

    def drawn(self, epoch: int, iteration: int, number: int, microbatch: Microbatch) -> Microbatch:
        """What the task makes at random of microbatch `number` of an iteration, where the microbatch lies; it is the
        same for every branch of an epoch."""

    def inputs(self, microbatches: Sequence[Microbatch]) -> tuple[Tensor, Tensor]:
        """The input of the model for these microbatches, as `drawn` returned them, and their labels, both on the
        device."""

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, group: Group) -> tuple[Tensor, Tensor]:
        """The mean loss of one forward pass in training, and how many of its samples are classified correctly; both are
        0-D."""

    def evaluate(self, model: nn.Module, split: Samples, group: Group, *, accuracy: bool) -> Tensor:
        """The sums [loss, correct, samples] over a split; where accuracy is not asked for, the count of correct samples
        may be NaN."""

    def test(self, model: nn.Module, split: Samples, group: Group) -> Tensor:
        """The sums [loss, correct, samples] over a split of which accuracy alone is reported."""
