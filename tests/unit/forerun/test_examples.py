"""Every example is a job that the service accepts, wherever the datasets lie."""

import json
from pathlib import Path

import pytest

from forerun.cli import EXAMPLE, read_spec
from service.spec.budget import Budget
from service.spec.job import JobSpec
from service.spec.task import BarlowTwinsTask
from service.validation.across_fields import check_across_fields

EXAMPLES = sorted(EXAMPLE.parent.glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_is_a_valid_spec(path: Path) -> None:
    check_across_fields(JobSpec.model_validate_json(json.dumps(read_spec(path))))


def test_what_the_examples_show() -> None:
    assert [path.stem for path in EXAMPLES] == [
        "barlow-twins",
        "baselines",
        "cifar10-resnet18",
        "digits",
        "fashion-mnist",
        "layer-wise-optimizers",
    ]
    barlow_twins, baselines, *specs = [JobSpec.model_validate_json(json.dumps(read_spec(path))) for path in EXAMPLES]
    assert barlow_twins.task == BarlowTwinsTask(name="barlow-twins")  # its defaults, written out
    assert baselines.budget == Budget(relative_to="stpt")
    assert [method.name for method in specs[0].methods] == ["stpt", "reference"]
    defaults = JobSpec(model="lenet5", dataset=specs[1].dataset, epochs=10)
    for name in ("lr_set", "lr_schedule", "methods"):  # written out
        assert getattr(specs[1], name) == getattr(defaults, name)
    assert specs[2].preset == "stpt-paper-fashion-mnist"
    assert [variant.optimizer.name for variant in specs[3].methods[0].variants] == ["lars", "lamb", "tvlars"] * 2
    assert EXAMPLE in EXAMPLES
