"""The options of optimizers, and their defaults."""

from typing import get_args

import pytest
from pydantic import TypeAdapter

from service.spec.optimizer import Optimizer, OptimizerName

PARSE = TypeAdapter(Optimizer).validate_python
LARS = {"adapt_1d": False, "momentum": 0.9, "trust_coefficient": 1e-3, "eps": 1e-8, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": False, "weight_decay": 0.0}),
        ("adam", {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}),
        ("adamw", {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}),
        ("adagrad", {"weight_decay": 0.0}),
        ("adadelta", {"weight_decay": 0.0}),
        ("rmsprop", {"weight_decay": 0.0}),
        ("lars", LARS),
        (
            "lamb",
            {
                "adapt_1d": False,
                "betas": [0.9, 0.999],
                "eps": 1e-6,
                "weight_decay": 0.0,
                "bias_correction": False,
                "max_trust_ratio": None,
            },
        ),
        (
            "tvlars",
            LARS | {"variant": "paper", "decay": 1e-4, "delay_epochs": 0, "minimum": None, "base_batch_size": 512},
        ),
    ],
)
def test_a_name_is_enough(name, options):
    assert PARSE(name).model_dump() == {"name": name, **options}


def test_names_are_those_of_the_types():
    union, _ = get_args(Optimizer)[:2]
    assert list(get_args(OptimizerName)) == [
        name for one in get_args(union) for name in get_args(one.model_fields["name"].annotation)
    ]
