import json

import pytest

from service.errors import InvalidInput
from service.spec.job import JobSpec
from service.spec.methods.cosine import CosineMethod
from service.spec.presets import PRESETS
from service.validation.door import parse_spec


def parse(**document) -> JobSpec:
    return parse_spec(json.dumps(document).encode())


IMAGENET = {"name": "image-folder", "path": "imagenet"}


def test_stpt_paper_is_what_the_paper_trained_with():
    spec = parse(preset="stpt-paper", dataset=IMAGENET)
    # Table 1
    assert (spec.model, spec.workers, spec.global_batch_size, spec.batch_per_worker) == ("resnet50", 8, 512, 64)
    [stpt] = spec.methods
    assert (spec.epochs, stpt.pretrain.iterations) == (40, 200)
    assert spec.optimizer.model_dump() == {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
    assert (spec.initial_learning_rate, stpt.warmup_epochs(40), stpt.warmup.learning_rate) == (0.1, 4, 0.005)
    # Table 4, and the cap
    assert spec.lr_set.model_dump() == {"kind": "named", "name": "mix", "max_learning_rate": 1.0}
    # Algorithm 1 and Fig. 1: the best accuracy of one branch a worker, and nothing else
    assert (stpt.metric, stpt.selector.name, spec.lr_schedule) == ("val_accuracy", "greedy", "constant")
    assert (stpt.pretrain.placement, stpt.pretrain.batch, stpt.pretrain.weights) == ("split", "per_worker", "raw")
    assert (stpt.guards.extend, stpt.guards.rollback, stpt.guards.rescale_momentum) == (False, False, False)
    assert stpt.audit is None


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_job(name):
    spec = parse(
        **{"dataset": IMAGENET} | {"preset": name} | {k: v for k, v in PRESETS[name].items() if k == "dataset"}
    )
    assert spec.preset == name
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


def test_what_the_user_says_goes_before_the_preset():
    spec = parse(preset="stpt-paper-fashion-mnist", dataset="digits", epochs=3, lr_set="narrow", global_batch_size=64)
    assert (spec.dataset.name, spec.epochs, spec.lr_set.name, spec.model) == ("digits", 3, "narrow", "lenet5")


def test_inside_pretrain_warmup_and_guards_too():
    parts = {"pretrain": {"iterations": 3}, "warmup": {"epochs": 2}, "guards": {"rollback": True}}
    methods = ["cosine", {"name": "stpt", **parts}, {"name": "stpt", "label": "paper"}]
    spec = parse(preset="stpt-paper-fashion-mnist", dataset="digits", global_batch_size=64, methods=methods)
    cosine, mine, paper = spec.methods
    assert cosine == CosineMethod()
    assert (mine.pretrain.iterations, mine.pretrain.weights) == (3, "raw")
    assert (mine.warmup.epochs, mine.warmup.learning_rate) == (2, 0.005)
    assert (mine.guards.extend, mine.guards.rollback) == (False, True)
    assert (paper.label, paper.guards.rollback, paper.selector.name) == ("paper", False, "greedy")


def test_a_preset_of_another_name():
    with pytest.raises(InvalidInput) as caught:
        parse(preset="stpt-papers", model="lenet5", dataset="digits", epochs=3)
    [error] = caught.value.errors
    assert (error.field, error.value) == ("preset", "stpt-papers")
    assert "'stpt-paper', 'stpt-paper-fashion-mnist' or 'stpt-paper-cifar10'" in error.message
