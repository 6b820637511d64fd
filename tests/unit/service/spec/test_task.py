"""What a spec may say of its task, and what does not go with Barlow Twins."""

import json

import pytest

from service.errors import InvalidInput
from service.spec.catalog import BACKBONES, MODELS
from service.spec.task import BarlowTwinsTask, ClassificationTask, Probe
from service.validation.door import parse_spec
from tests.builders import nested


def spec(**changes):
    small = {"model": "lenet5", "dataset": "digits", "epochs": 3, "task": "barlow-twins"}
    return parse_spec(json.dumps(nested(**{**small, **changes})).encode())


def test_a_name_alone_is_a_task_with_its_defaults():
    assert spec().task == BarlowTwinsTask(
        name="barlow-twins",
        projector=[2048, 2048, 2048],
        off_diagonal_weight=0.0051,  # Zbontar et al. 2021, section 2.2
        probe=Probe(train_samples=5000, epochs=20, learning_rate=0.1),
    )
    assert spec(task="classification").task == ClassificationTask()


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"model": "vgg16", "dataset": "cifar10"}, "model", "choose lenet5, lenet5-bn, or a model whose name begins"),
        ({"metric": "train_accuracy"}, "methods[0].metric", "use val_loss, or val_accuracy, which is the probe's"),
        (
            {"workers": 2, "pretrain": {"batch": "per_worker"}, "lr_set": "middle"},
            "methods[0].pretrain.batch",
            "use global",
        ),
        ({"global_batch_size": 1}, "global_batch_size", "use 2 or more"),
        ({"microbatch_size": 16}, "microbatch_size", "is that of a whole batch, in one pass; leave it out"),
    ],
)
def test_what_does_not_go_with_barlow_twins(changes, field, message):
    with pytest.raises(InvalidInput) as caught:
        spec(**changes)
    [error] = caught.value.errors
    assert error.field == field
    assert message in error.message
    assert spec(**(changes | {"task": "classification"}))


def test_backbones_are_models():
    assert set(BACKBONES) < set(MODELS)
    assert {"lenet5", "resnet18-cifar", "resnet34-cifar", "resnet50", "wide_resnet50_2"} < set(BACKBONES)
