"""Every example is a job that the service accepts, wherever the datasets lie."""

import json
from pathlib import Path

import pytest

from forerun.cli import EXAMPLE, read_spec
from service.plan import check_across_fields
from service.spec import JobSpec, ScheduledLrSet

EXAMPLES = sorted(EXAMPLE.parent.glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_is_a_valid_spec(path: Path) -> None:
    check_across_fields(JobSpec.model_validate_json(json.dumps(read_spec(path))))


def test_every_kind_is_shown() -> None:
    assert [path.stem for path in EXAMPLES] == ["cifar10-resnet18", "digits", "fashion-mnist"]
    specs = [JobSpec.model_validate_json(json.dumps(read_spec(path))) for path in EXAMPLES]
    assert isinstance(specs[0].lr_set, ScheduledLrSet)
    assert EXAMPLE in EXAMPLES
