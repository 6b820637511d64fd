"""Optimizers by name."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from service.spec.methods.schedule_free import ScheduleFreeMethod
from service.spec.optimizer import Optimizer
from workers.engine.optimizer import set_learning_rate
from workers.methods.schedule_free import make_optimizer
from workers.optimizers.build import build_optimizer, scale_momentum
from workers.optimizers.lamb import Lamb
from workers.optimizers.lars import Lars
from workers.optimizers.tvlars import Tvlars

PARSE = TypeAdapter(Optimizer).validate_python


def build(document, learning_rate=0.25):
    parameters = nn.Linear(2, 1).parameters()
    return build_optimizer(PARSE(document), parameters, learning_rate, iterations=20, global_batch_size=1024)


@pytest.mark.parametrize(
    ("document", "made", "options"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": False, "weight_decay": 0, "dampening": 0}),
        ({"name": "sgd", "momentum": 0.0}, torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
        (
            {"name": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 5e-4},
            torch.optim.SGD,
            {"momentum": 0.8, "nesterov": True, "weight_decay": 5e-4},
        ),
        ("adam", torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}),
        (
            {"name": "adamw", "betas": [0.5, 0.75], "eps": 1e-6, "weight_decay": 0.1},
            torch.optim.AdamW,
            {"betas": (0.5, 0.75), "eps": 1e-6, "weight_decay": 0.1},
        ),
        ("adamw", torch.optim.AdamW, {"weight_decay": 0}),  # torch's default is 0.01; the spec's is 0
        ({"name": "adagrad", "weight_decay": 0.1}, torch.optim.Adagrad, {"weight_decay": 0.1, "lr_decay": 0}),
        ({"name": "adadelta", "weight_decay": 0.1}, torch.optim.Adadelta, {"weight_decay": 0.1, "rho": 0.9}),
        ({"name": "rmsprop", "weight_decay": 0.1}, torch.optim.RMSprop, {"weight_decay": 0.1, "momentum": 0}),
        (
            "lars",
            Lars,
            {"momentum": 0.9, "weight_decay": 0, "trust_coefficient": 1e-3, "eps": 1e-8, "adapt_1d": False},
        ),
        (
            {"name": "lars", "momentum": 0.5, "weight_decay": 0.1, "trust_coefficient": 0.02, "adapt_1d": True},
            Lars,
            {"momentum": 0.5, "weight_decay": 0.1, "trust_coefficient": 0.02, "adapt_1d": True},
        ),
        (
            "lamb",
            Lamb,
            {
                "betas": (0.9, 0.999),
                "eps": 1e-6,
                "weight_decay": 0,
                "bias_correction": False,
                "max_trust_ratio": None,
                "adapt_1d": False,
            },
        ),
        (
            {"name": "lamb", "betas": [0.5, 0.75], "bias_correction": True, "max_trust_ratio": 2.0},
            Lamb,
            {"betas": (0.5, 0.75), "bias_correction": True, "max_trust_ratio": 2.0},
        ),
        # 1024 / 512 x 0.001; epochs of 20 iterations
        ("tvlars", Tvlars, {"alpha": 1, "decay": 1e-4, "delay": 0, "minimum": 0.002, "max_norm": None}),
        (
            {"name": "tvlars", "decay": 1e-2, "delay_epochs": 3, "base_batch_size": 256, "momentum": 0.8},
            Tvlars,
            {"decay": 1e-2, "delay": 60, "minimum": 0.004, "momentum": 0.8},
        ),
        ({"name": "tvlars", "minimum": 0.5}, Tvlars, {"minimum": 0.5}),
        (
            {"name": "tvlars", "variant": "reference_code", "weight_decay": 0.1},
            Tvlars,
            {"alpha": 0.1, "delay": 0, "minimum": 0, "max_norm": 10, "weight_decay": 0.1},
        ),
    ],
)
def test_an_optimizer_has_the_options_of_the_spec(document, made, options):
    optimizer = build(document)
    assert type(optimizer) is made
    [group] = optimizer.param_groups
    assert {"lr": 0.25, **options}.items() <= group.items()


@pytest.mark.parametrize("name", ["sgd", "lars", "tvlars"])
def test_schedule_free_has_the_momentum_of_the_job(name):
    optimizer = PARSE({"name": name, "momentum": 0.5})
    made = make_optimizer(ScheduleFreeMethod(), optimizer, nn.Linear(2, 1).parameters())
    assert made.param_groups[0]["momentum"] == 0.5


def test_the_learning_rate_is_that_of_every_group():
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.2)])
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize(("document", "scaled"), [("sgd", 0.25), ("lars", 0.25), ("tvlars", 0.25), ("lamb", 1.0)])
def test_momentum_that_steps_are_taken_by_is_scaled(document, scaled):
    optimizer = build(document)
    [parameter, _] = optimizer.param_groups[0]["params"]
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before = {key: value.clone() for key, value in optimizer.state[parameter].items()}
    scale_momentum(optimizer, 0.25)
    for key, value in optimizer.state[parameter].items():
        assert torch.equal(value, before[key] * (scaled if key == "momentum_buffer" else 1.0))
