"""Tasks by name: how microbatches become a loss, and what is evaluated, for the loop of workers.engine."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from service.spec.job import JobSpec
from service.spec.task import BarlowTwinsTask
from workers.datasets.load import Data
from workers.engine import progress
from workers.engine.groups import Group
from workers.engine.protocols import Microbatch, Samples, Task
from workers.engine.seeds import derived_seed
from workers.models.build import cut_head
from workers.tasks.barlow_twins import (
    Twins,
    barlow_twins_loss,
    batch_norm_over,
    fit_probe,
    make_augmentation,
    make_projector,
    two_views,
    view_seeds,
)

EVALUATION_BATCH = 500  # samples a forward pass
VIEWS_SEED = 20_103  # any constant: the views that a validation loss is of are the same for every job


class PreparedTask(Task, Protocol):
    """A task that also builds its net from a classifier."""

    def prepared(self, model: nn.Module) -> nn.Module:
        """The net that this task trains, made of a classifier."""


def build_task(spec: JobSpec, data: Data, device: torch.device) -> PreparedTask:
    """The task of a job, whose tensors lie on `device`."""
    if isinstance(spec.task, BarlowTwinsTask):
        return BarlowTwins(spec, spec.task, data, device)
    return Classification(data, device)


class Classification:
    """The task of predicting the label of each image; the loss is cross entropy."""

    joint, draws, probe_samples = False, False, 0

    def __init__(self, data: Data, device: torch.device) -> None:
        self._train, self._device = data.train, device

    def prepared(self, model: nn.Module) -> nn.Module:
        return model

    def drawn(self, epoch: int, iteration: int, number: int, microbatch: Microbatch) -> Microbatch:
        return microbatch

    def inputs(self, microbatches: Sequence[Microbatch]) -> tuple[Tensor, Tensor]:
        [(images, labels)] = microbatches
        return self._train.normalised(images, self._device), labels.to(self._device)

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, group: Group) -> tuple[Tensor, Tensor]:
        outputs = model(images)
        return cross_entropy(outputs, labels), (outputs.argmax(1) == labels).sum()

    def evaluate(self, model: nn.Module, split: Samples, group: Group, *, accuracy: bool) -> Tensor:
        return self.test(model, split, group)

    def test(self, model: nn.Module, split: Samples, group: Group) -> Tensor:
        sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        for indices in shares(len(split), group):
            images, labels = split.batch(indices, self._device)
            sums += judged(model(images), labels)
        return sums


class BarlowTwins:
    """The task of training a backbone and a projector without labels; accuracies are those of a linear probe on the
    backbone.

    The loss is over the samples that a group's workers hold together in an iteration, however many each of them has.
    """

    joint, draws = True, True

    def __init__(self, job: JobSpec, spec: BarlowTwinsTask, data: Data, device: torch.device) -> None:
        self._spec, self._train, self._classes, self._device = spec, data.train, data.classes, device
        self._seed, self._batch, self._share = job.seed, job.global_batch_size, job.batch_per_worker
        self._start_seed = derived_seed(job.seed, 0)
        self._augment = make_augmentation(data.channels, data.image_size)
        self._validation_seeds = view_seeds(VIEWS_SEED, len(data.validation))
        self._validation_views: dict[tuple[int, int], Tensor] = {}
        self.probe_samples = min(spec.probe.train_samples, len(data.train))
        generator = torch.Generator().manual_seed(self._start_seed)
        self._probed = torch.randperm(len(data.train), generator=generator)[: self.probe_samples]

    def prepared(self, model: nn.Module) -> nn.Module:
        features = cut_head(model)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._start_seed)
            return Twins(model, make_projector(features, self._spec.projector))

    def drawn(self, epoch: int, iteration: int, number: int, microbatch: Microbatch) -> Microbatch:
        """The two random views of each image of the microbatch, uint8 [2 b, C, H, W], all first views before all second
        views, with the labels."""
        images, labels = microbatch
        # by an image's place in the global batch: its views are the same on however many workers
        seeds = view_seeds(derived_seed(self._seed, epoch, iteration), self._batch).view(-1, self._share)[number]
        return two_views(images, seeds.tolist(), self._augment), labels

    def inputs(self, microbatches: Sequence[Microbatch]) -> tuple[Tensor, Tensor]:
        pairs = [views.chunk(2) for views, _ in microbatches]
        views = torch.cat([first for first, _ in pairs] + [second for _, second in pairs])
        labels = torch.cat([labels for _, labels in microbatches])
        return self._train.normalised(views, self._device), labels.to(self._device)

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, group: Group) -> tuple[Tensor, Tensor]:
        with batch_norm_over(group, model):
            first, second = model(images).chunk(2)
        loss = barlow_twins_loss(first, second, self._spec.off_diagonal_weight, group)
        return loss, labels.new_zeros(())

    def evaluate(self, model: nn.Module, split: Samples, group: Group, *, accuracy: bool) -> Tensor:
        """The sums [loss, correct, samples] over a split: the loss is of the whole split, of two views that are always
        the same, and the accuracy is that of a linear probe."""
        first, second = ([torch.empty(0, self._spec.projector[-1], device=self._device)] for _ in range(2))
        for indices in shares(len(split), group):
            views = self._views(split, indices, group)
            halves = model(split.normalised(views, self._device)).chunk(2)
            first.append(halves[0].float())
            second.append(halves[1].float())
        embeddings = torch.cat(first), torch.cat(second)
        loss = barlow_twins_loss(*embeddings, self._spec.off_diagonal_weight, group).double()
        samples = loss.new_tensor(len(embeddings[0]))
        correct = self.test(model, split, group)[1] if accuracy else loss.new_tensor(float("nan"))
        return torch.stack([loss * samples, correct, samples])

    def test(self, model: nn.Module, split: Samples, group: Group) -> Tensor:
        """The sums [loss, correct, samples] of a linear probe, fitted anew: its cross entropy and its accuracy on the
        split."""
        assert isinstance(model, Twins)
        first = model.projector[0]
        assert isinstance(first, nn.Linear)
        features = torch.zeros(self.probe_samples, first.in_features, device=self._device)
        for places in shares(self.probe_samples, group):
            images, _ = self._train.batch(self._probed[places], self._device)
            features[places] = model.backbone(images).float()
        group.sum_(features)  # each has put its share in its place
        labels = self._train.labels[self._train.rows[self._probed.to(self._train.rows.device)]].to(self._device)
        classify = fit_probe(features, labels, self._classes, self._spec.probe, self._start_seed)
        sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        for indices in shares(len(split), group):
            images, labels = split.batch(indices, self._device)
            sums += judged(classify(model.backbone(images).float()), labels)
        return sums

    def _views(self, split: Samples, indices: Tensor, group: Group) -> Tensor:
        """The views of these validation samples, uint8 [2 k, C, H, W]. They are kept where the split lies in memory."""
        key = (group.size, int(indices[0]))
        if (views := self._validation_views.get(key)) is None:
            images, _ = split.read(indices)
            views = two_views(images, self._validation_seeds[indices].tolist(), self._augment)
            if split.in_memory:
                self._validation_views[key] = views
        return views


def shares(samples: int, group: Group) -> Iterator[Tensor]:
    """Yield the indices of this worker's share of so many samples, one forward pass after another; nothing for a worker
    without a sample."""
    share = group.size * EVALUATION_BATCH
    for first in range(group.position, samples, share):
        yield torch.arange(first, min(first + share, samples), group.size)
        progress.advance()


def judged(outputs: Tensor, labels: Tensor) -> Tensor:
    """The sums [loss, correct, samples] of logits [k, classes] with labels [k], float64."""
    loss = cross_entropy(outputs, labels, reduction="sum").double()
    correct = (outputs.argmax(1) == labels).sum()
    return torch.stack([loss, correct.double(), correct.new_tensor(len(labels)).double()])
