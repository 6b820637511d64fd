"""DoG with its averaged iterate, held against the authors' package."""

import copy

import pytest
import torch
from dog import DoG, PolynomialDecayAverager
from torch import nn
from torch.nn.functional import cross_entropy

from workers.engine.state import Flat, materialise, training_state
from workers.optimizers.dog import AveragedDog

CPU = torch.device("cpu")


def gradients(model: nn.Module, step: int) -> None:
    """Those of step number `step`, whatever the weights: the same ones for every model of this architecture."""
    generator = torch.Generator().manual_seed(step)
    images, labels = torch.randn(16, 5, generator=generator), torch.randint(3, (16,), generator=generator)
    model.zero_grad()
    cross_entropy(model(images), labels).backward()


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, copy.deepcopy(model)


def test_iterate_and_average_are_those_of_the_package():
    model, other = pair()
    mine, theirs = AveragedDog(model.parameters(), weight_decay=0.01), DoG(other.parameters(), weight_decay=0.01)
    averager = PolynomialDecayAverager(other)
    mine.train()
    for step in range(30):
        for net, optimizer in ((model, mine), (other, theirs)):
            gradients(net, step)
            optimizer.step()
        averager.step()
    assert all(torch.equal(*weights) for weights in zip(model.parameters(), other.parameters(), strict=True))
    mine.eval()
    for weights in zip(model.parameters(), averager.averaged_model.parameters(), strict=True):
        assert torch.allclose(*weights, rtol=1e-6, atol=1e-7)
        assert not torch.equal(weights[0], 0 * weights[0])


def test_train_and_eval_may_be_called_at_any_time():
    model, _ = pair()
    optimizer = AveragedDog(model.parameters())
    optimizer.train()
    for step in range(3):
        gradients(model, step)
        optimizer.step()
    iterate = [weight.detach().clone() for weight in model.parameters()]
    for _ in range(2):
        optimizer.eval()
        assert not any(torch.equal(*weights) for weights in zip(model.parameters(), iterate, strict=True))
        optimizer.eval()
        optimizer.train()
        assert all(torch.equal(*weights) for weights in zip(model.parameters(), iterate, strict=True))
        optimizer.train()
    optimizer.eval()
    with pytest.raises(AssertionError, match="call train"):
        optimizer.step()


def test_its_state_is_there_before_the_first_step():
    model, _ = pair()
    optimizer = AveragedDog(model.parameters())
    before = Flat(list(training_state(model, optimizer).values()), CPU).digest()
    materialise(optimizer)
    tensors = training_state(model, optimizer)
    assert Flat(list(tensors.values()), CPU).digest() == before
    assert [name for name in tensors if name.startswith("optimizer.0.weight")] == [
        f"optimizer.0.weight.{name}" for name in ("G", "other", "rbar", "start")
    ]
