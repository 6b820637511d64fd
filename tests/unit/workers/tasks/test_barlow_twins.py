"""The parts of Barlow Twins: against references, over one worker and over many."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from service.spec.task import Probe
from tests.unit.workers.ranks import CPU, digits
from workers.engine.groups import Workers
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

pytest_plugins = ["tests.unit.workers.ranks"]

ALONE = Workers(CPU).world


# --- the loss ----------------------------------------------------------------------------------------

COLUMNS = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])  # two parts of an embedding that do not correlate


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (COLUMNS, COLUMNS, 0.0),  # C is the identity
        (COLUMNS, 5 * COLUMNS + 3, 0.0),  # scale and shift are taken out
        (COLUMNS, -COLUMNS, 8.0),  # (1 + 1)^2 twice
        (COLUMNS, COLUMNS.flip(1), 2 + 0.01 * 2),  # a diagonal of 0, the rest 1
        (COLUMNS[:, [0, 0]], COLUMNS[:, [0, 0]], 0.01 * 2),  # all parts say the same
    ],
)
def test_losses_that_can_be_told_by_hand(first, second, expected):
    assert barlow_twins_loss(first, second, 0.01, ALONE).item() == pytest.approx(expected, abs=1e-3)  # EPS


def reference_loss(first, second, weight):
    """The loss of Barlow Twins by equations 1 and 2 of its paper (Zbontar et al.), sum by sum, in float64."""
    samples, width = first.shape
    first, second = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (first, second))
    loss = 0.0
    for i in range(width):
        for j in range(width):
            c = sum(first[b, i] * second[b, j] for b in range(samples)) / samples
            loss += (1 - c) ** 2 if i == j else weight * c**2
    return loss


@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_loss_is_that_of_the_equations(samples, width, seed, weight):
    drawn = np.random.default_rng(seed)
    first, second = drawn.normal(2, 3, (samples, width)), drawn.normal(-1, 0.5, (samples, width))
    loss = barlow_twins_loss(torch.from_numpy(first), torch.from_numpy(second), weight, ALONE)
    assert loss.item() == pytest.approx(reference_loss(first, second, weight), rel=1e-4, abs=1e-5)


def embeddings(seed, samples):
    return torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def loss_of_a_share(sizes):
    """This rank's loss and the gradients of its rows, as the loop makes them: summed over the group, over its size."""
    world = Workers(CPU).world
    first, second = embeddings(1, sum(sizes)), embeddings(2, sum(sizes))
    mine = slice(sum(sizes[: world.position]), sum(sizes[: world.position + 1]))
    loss = barlow_twins_loss(first[mine], second[mine], 0.1, world)
    (loss / world.size).backward()
    world.sum_gradients([first, second])
    return loss.item(), first.grad.tolist(), second.grad.tolist()


@pytest.mark.parametrize("sizes", [(6, 6), (5, 4, 3), (12, 0)])
def test_workers_have_the_loss_of_all_samples_together(ranks, sizes):
    first, second = embeddings(1, 12), embeddings(2, 12)
    loss = barlow_twins_loss(first, second, 0.1, ALONE)
    loss.backward()
    told = ranks(len(sizes), loss_of_a_share, sizes)
    for its_loss, *gradients in told:
        assert its_loss == pytest.approx(loss.item(), rel=1e-5)
        assert gradients == [pytest.approx(np.array(z.grad.tolist()), abs=1e-5) for z in (first, second)]


# --- batch normalisation -----------------------------------------------------------------------------


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 5),
        nn.BatchNorm1d(5, affine=False),
    )


def images(samples):
    return torch.randn(samples, 1, 6, 6, generator=torch.Generator().manual_seed(7)) * 3 + 1


def normalised_over_workers(sizes):
    world, net = Workers(CPU).world, small_net()
    share = images(sum(sizes)).split(sizes)[world.position]
    with batch_norm_over(world, net):
        outputs = net(share)
        net.eval()
        torch.testing.assert_close(net(share[:1]), net(share)[:1])  # running statistics, as ever
        net.train()
    outputs.pow(3).sum().backward()
    world.sum_gradients(net.parameters())
    assert all("forward" not in vars(layer) for layer in net)
    return outputs.tolist(), [p.grad.tolist() for p in net.parameters()], [b.tolist() for b in net.buffers()]


@pytest.mark.parametrize("sizes", [(4, 4), (5, 2, 1)])
def test_batch_normalisation_is_that_of_one_worker_with_all_samples(ranks, sizes):
    net = small_net()
    outputs = net(images(8))
    outputs.pow(3).sum().backward()
    told = ranks(len(sizes), normalised_over_workers, sizes)
    assert np.concatenate([its for its, _, _ in told]) == pytest.approx(outputs.detach().numpy(), abs=1e-5)
    for _, gradients, buffers in told:
        for mine, parameter in zip(gradients, net.parameters(), strict=True):
            assert np.array(mine) == pytest.approx(parameter.grad.numpy(), abs=2e-4)
        for mine, buffer in zip(buffers, net.buffers(), strict=True):
            assert np.array(mine) == pytest.approx(buffer.numpy(), abs=1e-5)


# --- the net and the views ---------------------------------------------------------------------------


def test_a_projector_has_batch_normalisation_and_relu_between_its_layers():
    layers = [type(layer).__name__ for layer in make_projector(7, [5, 4, 3])]
    assert layers == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    shapes = [tuple(p.shape) for p in make_projector(7, [5, 4, 3]).parameters()]
    assert shapes == [(5, 7), (5,), (5,), (4, 5), (4,), (4,), (3, 4)]
    assert [tuple(p.shape) for p in make_projector(7, [3]).parameters()] == [(3, 7)]


def test_each_view_goes_through_the_net_by_itself():
    net = Twins(nn.Sequential(nn.Flatten(), nn.Linear(36, 6)), make_projector(6, [4, 2]))
    first, second = images(5), images(9)[4:]
    both = net(torch.cat([first, second]))
    assert torch.equal(both, torch.cat([net.projector(net.backbone(views)) for views in (first, second)]))
    assert both.shape == (10, 2)


def colourful(samples, size):
    return torch.randint(256, (samples, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("size", [32, 64])
def test_views_are_functions_of_an_image_and_its_seed(size):
    augment, seeds = make_augmentation(3, size), view_seeds(5, 6).tolist()
    pictures = colourful(6, size)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    views = two_views(pictures, seeds, augment)
    assert torch.equal(torch.get_rng_state(), before)
    assert (views.shape, views.dtype) == ((12, 3, size, size), torch.uint8)
    some = two_views(pictures[[4, 1]], [seeds[4], seeds[1]], augment)
    assert torch.equal(some, views[[4, 1, 10, 7]])
    assert len({view.numpy().tobytes() for view in views}) == 12  # no two are alike
    other = two_views(pictures, view_seeds(6, 6).tolist(), augment)
    assert not any(torch.equal(a, b) for a, b in zip(views, other, strict=True))


def test_images_of_one_channel_keep_their_levels_and_small_ones_are_not_blurred():
    def names(channels, size):
        steps = make_augmentation(channels, size).transforms
        return [type(getattr(step, "transforms", [step])[0]).__name__ for step in steps]

    assert names(1, 28) == ["RandomResizedCrop", "RandomHorizontalFlip"]
    assert names(3, 32) == ["RandomResizedCrop", "RandomHorizontalFlip", "ColorJitter", "RandomGrayscale"]
    assert names(3, 224)[-1] == "GaussianBlur"
    assert make_augmentation(3, 224).transforms[-1].transforms[0].kernel_size == (23, 23)  # as in the paper
    level = torch.full((2, 1, 28, 28), 90, dtype=torch.uint8)
    assert (two_views(level, [1, 2], make_augmentation(1, 28)) == 90).all()


# --- the probe ---------------------------------------------------------------------------------------


def test_a_probe_tells_classes_apart_that_a_line_divides():
    labels = torch.arange(300) % 3
    drawn = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    features = drawn + 100 + 8 * nn.functional.one_hot(labels, 4)  # features are centred before
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = (fit_probe(features[:200], labels[:200], 3, Probe(), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert (one(features[200:]).argmax(1) == labels[200:]).float().mean() == 1
    assert torch.equal(one(features), again(features))
    assert not torch.equal(one(features), other(features))


def test_a_probe_of_what_says_nothing_answers_at_random():
    train, labels = digits().train.batch(torch.arange(600), CPU)
    noise = torch.randn(600, 20, generator=torch.Generator().manual_seed(0))
    classify = fit_probe(noise[:300], labels[:300], 10, Probe(), 0)
    assert (classify(noise[300:]).argmax(1) == labels[300:]).float().mean() < 0.25
    with torch.no_grad():
        pixels = fit_probe(train[:300].flatten(1), labels[:300], 10, Probe(), 0)
    assert (pixels(train[300:].flatten(1)).argmax(1) == labels[300:]).float().mean() > 0.8
