"""What a spec may say of warm-up, stable, decay."""

import json

import pytest

from service.errors import InvalidInput
from service.spec.methods.wsd import WsdMethod
from service.validation.door import parse_spec
from tests.unit.service.specs import small


def test_by_its_name_alone_it_cools_down_over_a_fifth():
    method = WsdMethod()
    assert (method.learning_rate, method.warmup, method.decay) == (None, 0.05, 0.2)
    spec = parse_spec(json.dumps(small(methods=["wsd"])).encode())
    assert spec.methods == [method]


def test_warmup_and_decay_do_not_overlap():
    methods = ["stpt", {"name": "wsd", "warmup": 0.5, "decay": 0.6}]
    with pytest.raises(InvalidInput) as raised:
        parse_spec(json.dumps(small(methods=methods)).encode())
    [error] = raised.value.errors
    assert (error.field, error.value) == ("methods[1].decay", 0.6)
    assert error.message == "must be at most 1 together with warmup (0.5); lower one of them"
