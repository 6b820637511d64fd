"""What a spec may say of population-based bandits."""

import json

import pytest

from service.errors import InvalidInput
from service.spec.methods.pb2 import Pb2Method
from service.validation.door import parse_spec
from tests.unit.service.specs import small


def test_it_exploits_as_often_as_pbt():
    assert [Pb2Method().interval(epochs) for epochs in (1, 8, 40)] == [1, 1, 5]
    assert Pb2Method(perturbation_interval=3).interval(40) == 3


def test_ranges_may_be_searched():
    space = {"learning_rate": {"loguniform": [0.001, 1.0]}, "optimizer.momentum": {"uniform": [0.5, 0.95]}}
    spec = parse_spec(json.dumps(small(methods=[{"name": "pb2", "search_space": space}])).encode())
    assert list(spec.methods[0].search_space or {}) == ["learning_rate", "optimizer.momentum"]


def test_something_must_be_searched():
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=[{"name": "pb2", "search_space": {}}])).encode())
    [error] = caught.value.errors
    assert error.field == "methods[0].search_space"
    assert error.message == "must name a hyperparameter; leave it out to search the learning rate"


def test_choices_may_not():
    space = {"learning_rate": {"uniform": [0.1, 0.2]}, "optimizer.momentum": {"choice": [0.5, 0.9]}}
    with pytest.raises(InvalidInput) as caught:
        parse_spec(json.dumps(small(methods=[{"name": "pb2", "search_space": space}])).encode())
    [error] = caught.value.errors
    assert (error.field, error.value) == ("methods[0].search_space.optimizer.momentum", "choice")
    assert error.message == "must be a range: a Gaussian process proposes values; use uniform, or pbt for choices"
