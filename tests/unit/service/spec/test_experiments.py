import json
from typing import get_args

import pytest

from service.errors import InvalidInput
from service.spec.experiments import EXPERIMENTS, Scale, documents
from service.spec.job import JobSpec
from service.spec.methods.fixed import FixedMethod
from service.spec.methods.stpt import StptMethod
from service.spec.methods.study import StudyMethod
from service.validation.door import parse_spec

IMAGENET = {"dataset": {"name": "image-folder", "path": "imagenet"}}


def specs(study: str, scale: Scale = "paper", /, *, iterations: int = 2500, **changes) -> dict[str, JobSpec]:
    """By name, of the paper's own size."""
    found = documents(EXPERIMENTS[study], scale, changes, iterations, "my study")
    parsed = [parse_spec(json.dumps(document).encode()) for document in found]
    return {spec.name: spec for spec in parsed}


def test_alphas_of_the_paper():
    jobs = specs("alpha-sweep", **IMAGENET)
    assert {name: stpt.pretrain.iterations for name, spec in jobs.items() for stpt in spec.methods_of(StptMethod)} == {
        "alpha 8% of an epoch": 200,
        "alpha 25% of an epoch": 625,
        "alpha 50% of an epoch": 1250,
        "alpha 100% of an epoch": 2500,
    }
    assert {spec.lr_set.name for name, spec in jobs.items() if name != "reference"} == {"paper-alpha"}
    assert [method.name for method in jobs["reference"].methods] == ["reference"]


def test_alphas_in_proportion_on_smaller_data():
    jobs = specs("alpha-sweep", "fashion-mnist", iterations=105)
    stpts = [stpt for spec in jobs.values() for stpt in spec.methods_of(StptMethod)]
    assert [stpt.pretrain.iterations for stpt in stpts] == [8, 26, 52, 105]
    [least] = specs("alpha-sweep", "fashion-mnist", iterations=1)["alpha 8% of an epoch"].methods
    assert least.pretrain.iterations == 1


OF_STPT = [name for name, experiment in EXPERIMENTS.items() if experiment.paper == "STPT"]


@pytest.mark.parametrize("scale", get_args(Scale))
@pytest.mark.parametrize("name", OF_STPT)
def test_every_study_at_every_scale_is_made_of_jobs(name, scale):
    jobs = specs(name, scale, iterations=105, **(IMAGENET if scale == "paper" else {}))
    assert len(jobs) == {"alpha-sweep": 5, "lr-sets": 3, "mix": 3}.get(name, 1)
    for spec in jobs.values():
        assert spec.experiment == "my study"
        for stpt in spec.methods_of(StptMethod):
            assert (stpt.selector.name, stpt.pretrain.weights) == ("greedy", "raw")  # the paper's rule


def test_the_conventional_sweep_trains_each_candidate():
    [spec] = specs("conventional-sweep", "fashion-mnist").values()
    assert (spec.lr_set.name, [method.name for method in spec.methods]) == ("paper-alpha", ["sweep"])


def test_the_users_keys_win_but_for_what_the_study_varies():
    jobs = specs(
        "lr-sets",
        "fashion-mnist",
        epochs=4,
        lr_set="wide",
        name="mine",
        experiment="other",
        methods=[{"name": "stpt", "pretrain": {"iterations": 3}, "metric": "val_loss"}],
    )
    assert {name: spec.lr_set.name for name, spec in jobs.items()} == {
        "narrow": "narrow",
        "middle": "middle",
        "wide": "wide",
    }
    for spec in jobs.values():
        [stpt] = spec.methods
        assert (spec.epochs, stpt.metric, spec.experiment) == (4, "val_loss", "my study")
        assert (stpt.pretrain.iterations, stpt.pretrain.weights) == (3, "raw")  # the rest of it is the preset's
    mine = [{"name": "stpt", "pretrain": {"iterations": 3, "max_retries": 1}}]
    [alpha, *_] = specs("alpha-sweep", "fashion-mnist", iterations=100, methods=mine).values()
    [stpt] = alpha.methods
    assert (stpt.pretrain.iterations, stpt.pretrain.max_retries, stpt.pretrain.weights) == (8, 1, "raw")


def test_the_large_batches_of_the_second_paper():
    spec, ramp = specs("large-batches").values()
    assert (spec.model, spec.dataset.name, spec.epochs, spec.initial_learning_rate) == ("lenet5", "mnist", 30, 0.01)
    assert spec.optimizer.model_dump() == {"name": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    [study] = spec.methods
    assert isinstance(study, StudyMethod)
    assert study.batch_sizes == [64, 128, 256, 512, 1024, 2048, 4096, 8192]
    none, sqrt, linear, gradual, momentum = study.variants
    assert none.method == FixedMethod()
    assert [variant.method.scaling.rule for variant in (sqrt, linear, gradual)] == ["sqrt", "linear", "linear"]
    assert gradual.method.warmup.model_dump() == {"kind": "gradual", "epochs": 10}
    assert (momentum.method, momentum.optimizer.momentum) == (FixedMethod(), 0.9)
    assert (ramp.global_batch_size, ramp.initial_learning_rate, ramp.optimizer.momentum) == (2048, 0.01, 0.9)
    assert (ramp.epochs, ramp.lr_schedule, [method.name for method in ramp.methods]) == (30, "constant", ["batch-ramp"])
    scaled, _ = specs("large-batches", "fashion-mnist", seeds=3).values()
    assert (scaled.dataset.name, scaled.epochs, scaled.seeds) == ("fashion-mnist", 12, 3)
    assert scaled.methods[0].variants[3].method.warmup.epochs == 4
    short, _ = specs("large-batches", "fashion-mnist", epochs=1).values()
    assert short.methods[0].variants[3].method.warmup.epochs == 1


def test_the_layer_wise_optimizers_of_the_third_paper():
    jobs = specs("layer-wise-optimizers")
    assert list(jobs) == [f"batch {batch}" for batch in (512, 1024, 2048, 4096, 8192, 16384)]
    for name, spec in jobs.items():
        [study] = spec.methods
        assert isinstance(study, StudyMethod)
        assert study.batch_sizes == [spec.global_batch_size] == [int(name.split()[1])]
        assert (spec.model, spec.dataset.name, spec.epochs, spec.microbatch_size) == (
            *("resnet18-cifar", "cifar10", 100, 1024),
        )
    lars, lamb, tvlars, *others = jobs["batch 16384"].methods[0].variants
    assert [len(others), lars.name, lars.method.learning_rate] == [6, "lars, warm-up, 15", 15.0]
    assert (lars.optimizer.name, lamb.optimizer.name, tvlars.optimizer.name) == ("lars", "lamb", "tvlars")
    assert lars.method.warmup.model_dump() == {"kind": "linear", "epochs": 20}
    assert lamb.method.lr_schedule.model_dump() == {"kind": "cosine", "final": 0.001}
    assert (tvlars.method.warmup, tvlars.method.lr_schedule, tvlars.optimizer.decay) == (None, None, 1e-4)


def test_barlow_twins_in_the_third_papers_table_takes_batches_whole():
    jobs = specs("layer-wise-optimizers", task="barlow-twins")
    assert {spec.microbatch_size for spec in jobs.values()} == {None}
    with pytest.raises(InvalidInput, match="in one pass"):
        specs("layer-wise-optimizers", task="barlow-twins", microbatch_size=256)


def test_the_lambdas_of_the_third_paper():
    small_batch, large_batch = specs("tvlars-lambda", "cifar10").values()
    for spec, learning_rate in ((small_batch, 3.0), (large_batch, 17.0)):
        variants = spec.methods[0].variants
        assert [variant.optimizer.decay for variant in variants] == [1e-2, 5e-3, 1e-3, 1e-4, 1e-5, 1e-6]
        assert {variant.method.learning_rate for variant in variants} == {learning_rate}
        assert {variant.optimizer.minimum for variant in variants} == {1e-3}
        assert spec.epochs == 20
