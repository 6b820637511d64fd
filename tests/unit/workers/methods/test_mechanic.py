"""Mechanic around every optimizer, held against the authors' package, and its state."""

import copy
from typing import Any

import pytest
import torch
from mechanic_pytorch import mechanize
from torch import nn
from torch.nn.functional import cross_entropy

from service.spec.job import JobSpec
from tests.builders import spec_document
from workers.engine.state import Flat, training_state
from workers.methods.mechanic import make_optimizer

CPU = torch.device("cpu")
OPTIMIZERS = [
    {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-3},
    {"name": "sgd", "momentum": 0.0},
    {"name": "adam"},
    {"name": "adamw", "weight_decay": 1e-2},
    {"name": "adagrad"},
    {"name": "adadelta"},
    {"name": "rmsprop"},
    {"name": "lars"},
    {"name": "lamb"},
    {"name": "tvlars"},
]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def made(model: nn.Module, optimizer: dict[str, Any]) -> torch.optim.Optimizer:
    spec = JobSpec.model_validate(spec_document(methods=["mechanic"], optimizer=optimizer))
    return make_optimizer(spec.methods[0], spec, 10, model.parameters())  # type: ignore[arg-type]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> float:
    """Take the steps of these numbers, each on a batch of its own; returns the last loss."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(32, 5, generator=generator)
        optimizer.zero_grad()
        loss = cross_entropy(model(images), images[:, :3].argmax(1))
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_it_goes_on_from_a_copy_of_its_tensors(optimizer: dict[str, Any]) -> None:
    model = net()
    mechanic = made(model, optimizer)
    before = [weight.detach().clone() for weight in model.parameters()]
    flat = Flat(list(training_state(model, mechanic).values()), CPU)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    start = flat.save(flat.empty())
    middle_loss = train(model, mechanic, range(30))
    middle = flat.save(flat.empty())
    end = train(model, mechanic, range(30, 60)), flat.digest()
    flat.load(middle)
    assert (train(model, mechanic, range(30, 60)), flat.digest()) == end
    flat.load(start)
    assert train(model, mechanic, range(30)) == middle_loss
    assert flat.save(flat.empty()).equal(middle)


@pytest.mark.parametrize(
    ("optimizer", "base", "options"),
    [
        ({"name": "sgd", "momentum": 0.9, "weight_decay": 1e-3}, torch.optim.SGD, {"momentum": 0.9}),
        ({"name": "adamw", "weight_decay": 1e-3}, torch.optim.AdamW, {}),
    ],
)
def test_it_is_the_package(
    optimizer: dict[str, Any], base: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    model = net()
    other = copy.deepcopy(model)
    mechanic = made(model, optimizer)
    training_state(model, mechanic)
    theirs = mechanize(base)(other.parameters(), lr=1.0, weight_decay=1e-3, **options)
    train(model, mechanic, range(200))
    last = train(other, theirs, range(200))
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True))
    assert last < 0.7  # of log 3 at first: it has found a scale
