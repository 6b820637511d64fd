"""Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230) in parts: net, views, loss, and the probe that judges features.

Whatever is computed over a batch is computed over that of all workers of a group: the moments of batch normalisation
and of the embeddings, and the cross-correlation. So one worker and many train alike, up to floating-point noise.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from service.spec.task import Probe
from workers.engine import progress
from workers.engine.groups import Group

EPS = 1e-5  # added to variances, as torch's batch normalisation does
BLURRED = 64  # pixels: smaller images are blurred enough
PROBE_BATCH = 256


# --- the net -----------------------------------------------------------------------------------------


class Twins(nn.Module):
    """A backbone with a projector behind it. It turns images [2 k, C, H, W], all first views before all second views,
    into embeddings [2 k, D]."""

    def __init__(self, backbone: nn.Module, projector: nn.Sequential) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector

    def forward(self, images: Tensor) -> Tensor:
        # one half after the other: batch normalisation sees one view of each image, as in the paper's code
        return torch.cat([self.projector(self.backbone(views)) for views in images.chunk(2)])


def make_projector(features: int, widths: Sequence[int]) -> nn.Sequential:
    """The projector, of linear layers with batch normalisation and ReLU between them (Zbontar et al., section 2.2):
    from `features` inputs, through layers of these `widths`."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([features, *widths[:-1]]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear([features, *widths][-2], widths[-1], bias=False))


# --- views -------------------------------------------------------------------------------------------


def make_augmentation(channels: int, image_size: int) -> Callable[[Tensor], Tensor]:
    """The function that draws a random view of an image: uint8 [C, H, W] to uint8 [C, image_size, image_size] (Zbontar
    et al., appendix A, without solarisation)."""
    from torchvision.transforms import v2  # type: ignore[import-untyped]  # two seconds, which others need not spend

    steps = [v2.RandomResizedCrop(image_size, antialias=True), v2.RandomHorizontalFlip()]
    if channels == 3:
        steps += [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8), v2.RandomGrayscale(0.2)]
    if image_size >= BLURRED:
        kernel = image_size // 20 * 2 + 1  # about a tenth of the image, and odd: 23 of 224 pixels
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, sigma=(0.1, 2.0))], p=0.5))
    augmentation: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return augmentation


def two_views(images: Tensor, seeds: Sequence[int], augment: Callable[[Tensor], Tensor]) -> Tensor:
    """Two random views of each image: uint8 [k, C, H, W] to [2 k, C, H, W], all first views before all second views.
    The seed of an image decides both."""
    first, second = [], []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images.cpu(), seeds, strict=True):
            torch.default_generator.manual_seed(seed)  # torchvision draws from this one
            first.append(augment(image))
            second.append(augment(image))
    return torch.stack(first + second).to(images.device)


def view_seeds(seed: int, samples: int) -> Tensor:
    """The seeds for the views of so many samples, one each, int64 [samples]."""
    return torch.randint(2**63 - 1, (samples,), generator=torch.Generator().manual_seed(seed))


# --- over all workers of a group ---------------------------------------------------------------------


def _centred(values: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The moments of float32 [k, D, …] over the group, as (values less their mean, mean [D], variance [D], how many
    values a mean is of)."""
    others = [dimension for dimension in range(values.dim()) if dimension != 1]
    shape = [-1 if dimension == 1 else 1 for dimension in range(values.dim())]
    here = values.new_tensor([values.numel() / values.shape[1]])
    *sums, count = group.sum(torch.cat([values.sum(others), here])).split([values.shape[1], 1])
    mean = sums[0] / count
    centred = values - mean.view(shape)
    # in a second sum, not as E[x^2] - E[x]^2, which loses digits
    variance = group.sum(centred.square().sum(others)) / count
    return centred, mean, variance, count


def _batch_norm(layer: _BatchNorm, group: Group, inputs: Tensor) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, inputs)
    centred, mean, variance, count = _centred(inputs.float(), group)
    if layer.track_running_stats:
        assert layer.num_batches_tracked is not None
        assert layer.running_mean is not None
        assert layer.running_var is not None
        assert layer.momentum is not None
        with torch.no_grad():
            layer.num_batches_tracked.add_(1)
            layer.running_mean.lerp_(mean, layer.momentum)
            layer.running_var.lerp_(variance * count / (count - 1), layer.momentum)
    shape = [-1 if dimension == 1 else 1 for dimension in range(inputs.dim())]
    outputs = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        outputs = outputs * layer.weight.view(shape) + layer.bias.view(shape)
    return outputs.to(inputs.dtype)


@contextmanager
def batch_norm_over(group: Group, model: nn.Module) -> Iterator[None]:
    """Inside, batch normalisation of the model goes over the samples of all workers of the group.

    torch's SyncBatchNorm does that for CUDA tensors alone, and for one group that is fixed when the model is built.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)] if group.size > 1 else []
    for layer in layers:
        layer.forward = partial(_batch_norm, layer, group)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def barlow_twins_loss(first: Tensor, second: Tensor, off_diagonal_weight: float, group: Group) -> Tensor:
    """The loss of the whole group's samples, 0-D, the same on each of its workers (Zbontar et al., equations 1 and 2).

    `first` and `second` are embeddings [k, D] of two views of this worker's samples; k may differ between workers, and
    be 0.
    """
    with torch.autocast(first.device.type, enabled=False):
        normalised = []
        for embeddings in (first.float(), second.float()):
            centred, _, variance, count = _centred(embeddings, group)
            normalised.append(centred * (variance + EPS).rsqrt())
        correlation = group.sum(normalised[0].T @ normalised[1]) / count  # [D, D]
        diagonal = correlation.diagonal()
        redundancy = (correlation - diagonal.diag()).square().sum()
        return (1 - diagonal).square().sum() + off_diagonal_weight * redundancy


# --- the probe ---------------------------------------------------------------------------------------


def fit_probe(features: Tensor, labels: Tensor, classes: int, probe: Probe, seed: int) -> Callable[[Tensor], Tensor]:
    """Fit a linear classifier to features [n, F] with labels [n], and return it as a function from features [k, F] to
    logits [k, classes].

    It begins at zero, so that `seed` decides the order of the samples and nothing else does.
    """
    mean, scale = features.mean(0), (features.var(0, correction=0) + EPS).rsqrt()
    order = torch.Generator().manual_seed(seed)

    def logits(inputs: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return ((inputs - mean) * scale) @ weight + bias

    with torch.enable_grad():
        weight = torch.zeros(features.shape[1], classes, device=features.device, requires_grad=True)
        bias = torch.zeros(classes, device=features.device, requires_grad=True)
        optimizer = torch.optim.SGD([weight, bias], lr=probe.learning_rate, momentum=0.9)
        steps = probe.epochs * -(-len(features) // PROBE_BATCH)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(probe.epochs):
            for batch in torch.randperm(len(features), generator=order).to(features.device).split(PROBE_BATCH):
                optimizer.zero_grad()
                cross_entropy(logits(features[batch]), labels[batch]).backward()
                optimizer.step()
                cosine.step()
                progress.advance()
    return logits
