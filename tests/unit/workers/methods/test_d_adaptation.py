"""D-Adaptation as a method: its optimizer before the first step, and how far it gets."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn.functional import cross_entropy

from service.spec.methods.d_adaptation import DAdaptationMethod
from service.spec.optimizer import Optimizer
from workers.engine.state import Flat, training_state
from workers.methods.d_adaptation import make_optimizer

CPU = torch.device("cpu")


def made(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    spec: Optimizer = TypeAdapter(Optimizer).validate_python({"name": name, "weight_decay": 1e-3})
    return model, make_optimizer(DAdaptationMethod(), spec, model.parameters())


@pytest.mark.parametrize(("name", "state"), [("sgd", "s x0 z"), ("lars", "s x0 z"), ("adam", "exp_avg exp_avg_sq s")])
def test_its_state_is_there_before_the_first_step(name: str, state: str) -> None:
    model, optimizer = made(name)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    tensors = training_state(model, optimizer)
    assert [key for key in tensors if key.startswith("optimizer.0.bias")] == [
        f"optimizer.0.bias.{part}" for part in state.split()
    ]
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    assert optimizer.param_groups[0]["d"] == 1e-6


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_it_finds_a_step_size_and_goes_on_from_a_copy_of_tensors_and_numbers(name: str) -> None:
    model, optimizer = made(name)
    images, labels = torch.randn(64, 5), torch.randint(3, (64,))
    flat = Flat(list(training_state(model, optimizer).values()), CPU)

    def train() -> float:
        for _ in range(100):
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        return loss.item()

    start = cross_entropy(model(images), labels).item()
    middle = train()
    copy, numbers = flat.save(flat.empty()), [dict(group) for group in optimizer.param_groups]
    end, digest = train(), flat.digest()
    assert optimizer.param_groups[0]["d"] > 1e-4
    assert end < middle < start
    flat.load(copy)
    for group, values in zip(optimizer.param_groups, numbers, strict=True):
        group.update(values)
    assert (train(), flat.digest()) == (end, digest)
