import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.errors import FieldError, InvalidInput
from service.spec.job import JobSpec
from service.spec.lr_set import AbsoluteLrSet, HistoryLrSet, NamedLrSet, PhasedLrSet, RaceLrSet, RelativeLrSet
from service.spec.methods import METHODS
from service.spec.methods.reference import ReferenceMethod
from service.spec.methods.stpt import StptMethod
from service.spec.methods.sweep import SweepMethod
from service.spec.stpt import GreedySelector
from service.validation.door import parse_spec
from tests.builders import SETTINGS
from tests.unit.service.specs import SMALL, small, valid_specs


def parse(document) -> JobSpec:
    return parse_spec(document if isinstance(document, bytes) else json.dumps(document).encode())


def stpt_of(document) -> StptMethod:
    [method] = parse(document).methods
    return method


def wrong(document) -> dict[str, tuple[object, str]]:
    """field -> (value, message) of what is wrong with the document."""
    with pytest.raises(InvalidInput) as caught:
        parse(document)
    assert caught.value.code == "invalid_input"
    return {error.field: (error.value, error.message) for error in caught.value.errors}


# --- defaults and shorthand --------------------------------------------------------------------------


STPT = {
    "name": "stpt",
    "label": "stpt",
    "lr_set": None,
    "warmup": {"epochs": 0, "learning_rate": 0.005},
    "pretrain": {
        "weights": "averaged",
        "iterations": None,
        "placement": "split",
        "batch": "global",
        "max_retries": 2,
    },
    "main_train": {"iterations": None},
    "metric": "val_loss",
    "selector": {"name": "greedy"},
    "guards": {
        "extend": True,
        "skip_dead": True,
        "rollback": True,
        "max_accuracy_drop": 0.2,
        "rescale_momentum": True,
    },
    "audit": None,
    "scaling": None,
}


def test_every_default():
    assert parse({"model": "lenet5", "dataset": "digits", "epochs": 40, "lr_set": "mix"}).model_dump() == {
        "name": "",
        "experiment": "",
        "preset": None,
        "model": "lenet5",
        "dataset": {"name": "digits", "download": False, "validation_fraction": 0.1, "train_samples": None},
        "task": {"name": "classification"},
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
        "microbatch_size": None,
        "global_batch_size": 64,
        "epochs": 40,
        "workers": 1,
        "device": "auto",
        "seed": 0,
        "initial_learning_rate": 0.1,
        "lr_set": {"kind": "named", "name": "mix", "max_learning_rate": 1.0},
        "lr_schedule": "linear",
        "telemetry": None,
        "precision": "auto",
        "methods": [STPT],
        "seeds": 1,
        "budget": None,
    }


def test_the_default_search_is_a_race():
    assert parse({"model": "lenet5", "dataset": "digits", "epochs": 40}).lr_set.model_dump() == {
        "kind": "race",
        "factors": [10.0, 3.0, 1.0, 0.3, 0.1],
        "search_share": None,
        "warmup_share": 0.2,
        "max_learning_rate": 1e6,
    }


def test_defaults_of_what_is_not_a_default_itself():
    spec = parse(small(dataset={"name": "image-folder", "path": "birds"}, optimizer="adamw"))
    assert spec.dataset.model_dump() == {
        "name": "image-folder",
        "path": "birds",
        "image_size": 224,
        "validation_fraction": 0.1,
        "train_samples": None,
    }
    assert spec.optimizer.model_dump() == {"name": "adamw", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("epochs", "warmup"),
    [(40, 4), (8, 1), (3, 0), (1, 0), (4, 0), (5, 1), (10, 1), (14, 1), (15, 2), (100, 10), (100_000, 10_000)],
)
def test_the_papers_warm_up_is_a_tenth_of_the_epochs(epochs, warmup):
    assert stpt_of(small(epochs=epochs, warmup={"epochs": None})).warmup_epochs(epochs) == warmup


def test_a_warm_up_asked_for_is_taken_as_it_is():
    assert stpt_of(small(epochs=40, warmup={"epochs": 0})).warmup_epochs(40) == 0
    assert stpt_of(small(epochs=40, warmup={"epochs": 40})).warmup_epochs(40) == 40


def test_batch_per_worker():
    assert parse(small(global_batch_size=512, workers=8)).batch_per_worker == 64  # Yamada et al., Table 1


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("wide", NamedLrSet(name="wide")),
        ({"name": "wide", "max_learning_rate": 2.0}, NamedLrSet(name="wide", max_learning_rate=2.0)),
        ({"factors": [2.0, 0.5]}, RelativeLrSet(factors=[2.0, 0.5])),
        ({"learning_rates": [0.1]}, AbsoluteLrSet(learning_rates=[0.1])),
        ({"from_history": True}, HistoryLrSet(from_history=True)),
        ({"kind": "race"}, RaceLrSet()),
        ({"search_share": 0.2}, RaceLrSet(search_share=0.2)),
        ({"factors": [3, 1, 0.3], "warmup_share": 0}, RaceLrSet(factors=[3.0, 1.0, 0.3], warmup_share=0.0)),
        (
            {"phases": [{"first_epoch": 1, "lr_set": "wide"}, {"first_epoch": 4, "lr_set": {"factors": [1]}}]},
            PhasedLrSet(
                phases=[
                    {"first_epoch": 1, "lr_set": NamedLrSet(name="wide")},
                    {"first_epoch": 4, "lr_set": RelativeLrSet(factors=[1.0])},
                ]
            ),
        ),
    ],
)
def test_short_ways_to_write_an_lr_set(short, full):
    assert parse(small(lr_set=short)).lr_set == full
    assert parse(small(lr_set=full.model_dump())).lr_set == full


def test_short_ways_to_write_dataset_and_optimizer():
    assert parse(small()) == parse(small(dataset={"name": "digits"}, optimizer={"name": "sgd"}))


def test_short_ways_to_write_a_selector_and_methods():
    assert stpt_of(small(selector="greedy")).selector == GreedySelector()
    assert parse(small(selector="tolerance")) == parse(small(selector={"name": "tolerance", "tolerance": 0.03}))
    spec = parse(small(methods=["reference", "sweep", {"name": "stpt"}]))
    assert spec.methods == [ReferenceMethod(), SweepMethod(), StptMethod()]
    assert spec.model_dump()["methods"] == [
        {"name": "reference", "label": "reference", "learning_rate": 0.1, "factor": 10.0, "patience": 3},
        {"name": "sweep", "label": "sweep", "learning_rates": None, "lr_schedule": "constant"},
        STPT,
    ]


def test_every_method_that_needs_no_settings_may_stand_in_one_job():
    names = sorted(METHODS.keys() - {"replay", "study", "batch-ramp"})
    assert [method.name for method in parse(small(methods=names, budget={"epochs": 20})).methods] == names


def test_telemetry_is_asked_for():
    assert parse(small(telemetry={})).telemetry.model_dump() == {"every": 10}
    assert parse(small(telemetry={"every": 1})).telemetry.every == 1


def test_an_audit_is_asked_for():
    assert stpt_of(small(audit={})).audit.model_dump() == {"every": 5, "branches": 2}


def test_the_examples_of_the_schema_are_valid():
    examples = JobSpec.model_json_schema()["examples"]
    assert [parse(example).model for example in examples] == ["lenet5", "resnet18-cifar"]


# --- frozen, and the same after a round trip ----------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    ["", "dataset", "optimizer", "lr_set", "warmup", "pretrain", "main_train", "selector", "guards"],
    ids=lambda part: part or "spec",
)
def test_nothing_of_a_spec_can_be_assigned(part):
    spec = parse(small())
    owner = spec.methods[0] if part in SETTINGS else spec
    thing = getattr(owner, part) if part else spec
    before = spec.model_dump_json()
    for name in type(thing).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(thing, name, getattr(thing, name))
    assert spec.model_dump_json() == before


@settings(max_examples=60)
@given(spec=valid_specs())
def test_a_spec_survives_json(spec):
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
    assert parse(spec.model_dump_json().encode()) == spec  # and passes the checks across fields
    assert JobSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"), sort_keys=True))) == spec


# --- what is refused, by field ------------------------------------------------------------------------

FIELDS = [
    # strict: no value of another type
    ("epochs", True, "epochs", "valid integer"),
    ("epochs", "3", "epochs", "valid integer"),
    ("epochs", 3.0, "epochs", "valid integer"),
    ("epochs", None, "epochs", "valid integer"),
    ("workers", [1], "workers", "valid integer"),
    ("seed", "0", "seed", "valid integer"),
    ("initial_learning_rate", True, "initial_learning_rate", "valid number"),
    ("initial_learning_rate", "0.1", "initial_learning_rate", "valid number"),
    ("model", 5, "model", "valid string"),
    ("name", 5, "name", "valid string"),
    ("optimizer", {"name": "sgd", "nesterov": 1}, "optimizer.nesterov", "valid boolean"),
    ("lr_set", {"factors": "1"}, "lr_set.factors", "valid array"),
    ("lr_set", {"factors": [1, False]}, "lr_set.factors[1]", "valid number"),
    # ranges
    ("epochs", 0, "epochs", "greater than or equal to 1"),
    ("epochs", 100_001, "epochs", "less than or equal to 100000"),
    ("workers", 0, "workers", "greater than or equal to 1"),
    ("workers", 4097, "workers", "less than or equal to 4096"),
    ("global_batch_size", 0, "global_batch_size", "greater than or equal to 1"),
    ("seed", -1, "seed", "greater than or equal to 0"),
    ("seed", 2**63, "seed", "less than 9223372036854775808"),
    ("initial_learning_rate", 0, "initial_learning_rate", "greater than 0"),
    ("initial_learning_rate", -0.1, "initial_learning_rate", "greater than 0"),
    ("initial_learning_rate", 1e7, "initial_learning_rate", "less than or equal to 1000000"),
    ("lr_set", {"factors": []}, "lr_set.factors", "at least 1 item"),
    ("lr_set", {"learning_rates": [0.1] * 65}, "lr_set.learning_rates", "at most 64 items"),
    ("lr_set", {"learning_rates": [0.1, 0.0]}, "lr_set.learning_rates[1]", "greater than 0"),
    ("lr_set", {"factors": [1], "max_learning_rate": 0}, "lr_set.max_learning_rate", "greater than 0"),
    ("warmup", {"epochs": -1}, "warmup.epochs", "greater than or equal to 0"),
    ("warmup", {"learning_rate": 0}, "warmup.learning_rate", "greater than 0"),
    ("pretrain", {"iterations": 0}, "pretrain.iterations", "greater than or equal to 1"),
    ("pretrain", {"max_retries": 11}, "pretrain.max_retries", "less than or equal to 10"),
    ("main_train", {"iterations": -1}, "main_train.iterations", "greater than or equal to 0"),
    ("optimizer", {"name": "sgd", "momentum": 1.0}, "optimizer.momentum", "less than 1"),
    ("optimizer", {"name": "adam", "betas": [0.9]}, "optimizer.betas", "at least 2 items"),
    ("optimizer", {"name": "adam", "betas": [0.9, 1.0]}, "optimizer.betas[1]", "less than 1"),
    ("optimizer", {"name": "lars", "trust_coefficient": 0}, "optimizer.trust_coefficient", "greater than 0"),
    ("optimizer", {"name": "lamb", "max_trust_ratio": 0}, "optimizer.max_trust_ratio", "greater than 0"),
    ("optimizer", {"name": "tvlars", "decay": -1e-4}, "optimizer.decay", "greater than or equal to 0"),
    ("optimizer", {"name": "tvlars", "delay_epochs": 0.5}, "optimizer.delay_epochs", "valid integer"),
    ("optimizer", {"name": "tvlars", "base_batch_size": 2**20 + 1}, "optimizer.base_batch_size", "equal to 1048576"),
    ("dataset", {"name": "digits", "validation_fraction": 0}, "dataset.validation_fraction", "greater than 0"),
    ("dataset", {"name": "digits", "validation_fraction": 0.6}, "dataset.validation_fraction", "equal to 0.5"),
    ("dataset", {"name": "digits", "train_samples": 0}, "dataset.train_samples", "greater than or equal to 1"),
    (
        "dataset",
        {"name": "digits", "train_samples": 1294},
        "dataset.train_samples",
        "has 1293 samples that are not held",
    ),
    ("dataset", {"name": "image-folder", "path": "a", "image_size": 7}, "dataset.image_size", "equal to 8"),
    ("name", "x" * 201, "name", "at most 200 characters"),
    # names, each with what to do
    ("model", "resnet51", "model", "did you mean resnet50"),
    ("model", "zzz", "model", "GET /v1/catalog lists the models"),
    (
        "dataset",
        "imagenet",
        "dataset",
        "'digits', 'mnist', 'fashion-mnist', 'cifar10', 'tiny-imagenet', 'image-folder'",
    ),
    (
        "dataset",
        {"name": "digits", "download": True},
        "dataset",
        "digits has no download: it needs none; leave download",
    ),
    (
        "dataset",
        {"name": "tiny-imagenet", "download": True},
        "dataset",
        "no download: unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip in the data folder; leave download out",
    ),
    ("optimizer", "sdg", "optimizer", "'adamw', 'adagrad', 'adadelta', 'rmsprop', 'lars', 'lamb', 'tvlars'"),
    ("lr_set", "huge", "lr_set.name", "'paper-alpha', 'narrow', 'middle', 'wide' or 'mix'"),
    ("task", "regression", "task", "'classification', 'barlow-twins'"),
    ("task", {"projector": [8]}, "task.name", "Field required: one of 'classification', 'barlow-twins'"),
    ("task", {"name": "classification", "projector": [8]}, "task.projector", "unknown key; known: name"),
    ("task", {"name": "barlow-twins", "projector": []}, "task.projector", "at least 1 item"),
    ("task", {"name": "barlow-twins", "projector": [8, 0]}, "task.projector[1]", "greater than or equal to 1"),
    ("task", {"name": "barlow-twins", "off_diagonal_weight": -1}, "task.off_diagonal_weight", "greater than or equal"),
    ("task", {"name": "barlow-twins", "probe": {"epoch": 1}}, "task.probe.epoch", "did you mean epochs?"),
    ("lr_set", {"kind": "magic"}, "lr_set", "'relative', 'absolute', 'named', 'phases'"),
    ("metric", "accuracy", "metric", "'val_accuracy', 'val_loss' or 'train_accuracy'"),
    ("pretrain", {"placement": "packed"}, "pretrain.placement", "'split' or 'sequential'"),
    ("device", "tpu", "device", "'auto', 'cpu' or 'cuda'"),
    ("selector", "best", "selector", "'greedy', 'tolerance'"),
    ("lr_schedule", "sine", "lr_schedule", "'constant', 'linear' or 'cosine'"),
    ("precision", "float16", "precision", "'auto', 'float32' or 'bfloat16'"),
    ("pretrain", {"weights": "best"}, "pretrain.weights", "'raw' or 'averaged'"),
    ("methods", ["spt"], "methods[0]", "must be one of 'stpt', 'sweep', 'reference', 'replay'"),
    # unknown keys, also those that are named like a kind of something
    ("epoch", 3, "epoch", "unknown key; did you mean epochs? known: name, experiment, preset, model,"),
    ("sgd", {}, "sgd", "unknown key; known: name, experiment, preset, model,"),
    ("warmup", {"absolute": 1}, "warmup.absolute", "unknown key; known: epochs, learning_rate"),
    ("pretrain", {"iteration": 1}, "pretrain.iteration", "unknown key; did you mean iterations?"),
    ("lr_set", {"name": "mix", "preset": 1}, "lr_set.preset", "unknown key; known: kind, name, max_learning_rate"),
    (
        "lr_set",
        {"phases": [{"first_epoch": 1, "lr_set": "mix"}], "phase": 1},
        "lr_set.phase",
        "unknown key; did you mean phases? known: kind, phases",
    ),
    (
        "lr_set",
        {"phases": [{"first_epoch": 1, "lr_set": {"name": "mix", "kinds": 1}}]},
        "lr_set.phases[0].lr_set.kinds",
        "did you mean kind?",
    ),
    ("lr_set", {"stages": [{"factors": [1], "share": 1}]}, "lr_set.stages[0].share", "known: factors, pretrain_share"),
    ("optimizer", {"name": "adam", "adam": 1}, "optimizer.adam", "known: name, betas, eps, weight_decay"),
    ("optimizer", {"name": "lamb", "momentum": 0.9}, "optimizer.momentum", "known: name, betas, eps, weight_decay"),
    ("dataset", {"name": "digits", "path": "x"}, "dataset.path", "known: name, download, validation_fraction"),
    # unions whose tag is missing
    ("optimizer", {"momentum": 0.9}, "optimizer.name", "Field required: one of 'sgd', 'adam', 'adamw', 'adagrad'"),
    (
        "dataset",
        {"path": "x"},
        "dataset.name",
        "one of 'digits', 'mnist', 'fashion-mnist', 'cifar10', 'tiny-imagenet',",
    ),
    ("lr_set", {"from_history": False}, "lr_set.from_history", "Input should be True"),
    ("lr_set", {"from_history": True, "max": 1}, "lr_set.max", "unknown key; known: kind, from_history"),
    (
        "lr_set",
        {"max_learning_rate": 1},
        "lr_set",
        "it needs one of search_share, warmup_share, factors, learning_rates, name, phases",
    ),
    ("selector", {"name": "greedy", "tolerance": 0.1}, "selector.tolerance", "unknown key; known: name"),
    (
        "methods",
        [{"name": "tpe", "search_space": {"tpe": {"normal": [0, 1]}}}],
        "methods[0].search_space.tpe.normal",
        "known: uniform, loguniform, randint, lograndint, choice",
    ),
    (
        "methods",
        [{"name": "tpe", "reduction_factor": 2}],
        "methods[0].reduction_factor",
        "unknown key; known: label, search_space, lr_schedule, max_trials, gpus_per_trial, name",
    ),
    (
        "methods",
        ["stpt", {"name": "reference", "learning_rates": [1]}],
        "methods[1].learning_rates",
        "did you mean learning_rate?",
    ),
    # what stands inside a selector, a guard, an audit, a method
    ("selector", {"name": "tolerance", "tolerance": -0.1}, "selector.tolerance", "greater than or equal to 0"),
    ("selector", {"name": "tolerance", "tolerance": 1.5}, "selector.tolerance", "less than or equal to 1"),
    ("guards", {"rollback": 1}, "guards.rollback", "valid boolean"),
    ("guards", {"max_accuracy_drop": 0}, "guards.max_accuracy_drop", "greater than 0"),
    ("guards", None, "guards", "should be an object"),
    ("audit", {"every": 0}, "audit.every", "greater than or equal to 1"),
    ("audit", {"branches": 65}, "audit.branches", "less than or equal to 64"),
    ("audit", True, "audit", "should be an object"),
    ("telemetry", {"every": 0}, "telemetry.every", "greater than or equal to 1"),
    ("telemetry", {"every": 10.0}, "telemetry.every", "valid integer"),
    ("telemetry", {"evry": 10}, "telemetry.evry", "did you mean every?"),
    ("telemetry", 10, "telemetry", "should be an object"),
    ("methods", [], "methods", "at least 1 item"),
    ("methods", "stpt", "methods", "valid array"),
    ("methods", [{"name": "sweep", "learning_rates": []}], "methods[0].learning_rates", "at least 1 item"),
    ("methods", ["stpt", {"name": "sweep", "learning_rates": [0]}], "methods[1].learning_rates[0]", "greater than 0"),
    (
        "methods",
        [{"name": "sweep", "lr_schedule": "step"}],
        "methods[0].lr_schedule",
        "'constant', 'linear' or 'cosine'",
    ),
    ("methods", [{"name": "reference", "factor": 1}], "methods[0].factor", "greater than 1"),
    ("methods", [{"name": "reference", "patience": 0}], "methods[0].patience", "greater than or equal to 1"),
    (
        "methods",
        [{"name": "replay", "schedule": {"learning_rates": [0.1, -1]}}],
        "methods[0].schedule.learning_rates[1]",
        "greater than 0",
    ),
    ("methods", [{"name": "replay"}], "methods[0]", "name a job, or give a schedule"),
    ("methods", ["replay"], "methods[0]", "name a job, or give a schedule"),
    (
        "methods",
        [{"name": "fixed", "lr_schedule": "linear"}],
        "methods[0].lr_schedule",
        "'polynomial', 'cosine', 'step'",
    ),
    (
        "methods",
        [{"name": "fixed", "lr_schedule": {"power": 2}}],
        "methods[0].lr_schedule.kind",
        "one of 'polynomial', 'cosine'",
    ),
    (
        "methods",
        [{"name": "fixed", "lr_schedule": {"kind": "cosine", "final": 2}}],
        "methods[0].lr_schedule.final",
        "less than",
    ),
    ("methods", [{"name": "fixed", "warmup": {"kind": "linear"}}], "methods[0].warmup.epochs", "Field required"),
    ("methods", [{"name": "fixed", "defaults": "lars"}], "methods[0].defaults", "'lars-warm'"),
    ("methods", ["stpt", "sweep", "stpt"], "methods", "each run needs a label of its own, not stpt, sweep, stpt;"),
    # rules inside one part
    ("dataset", {"name": "digits", "download": True}, "dataset", "leave download out"),
    ("optimizer", {"name": "sgd", "momentum": 0.0, "nesterov": True}, "optimizer", "set one, or leave nesterov out"),
    (
        "optimizer",
        {"name": "tvlars", "variant": "reference_code", "delay_epochs": 3},
        "optimizer",
        "reference_code has no delay_epochs; leave it out, or take variant paper",
    ),
    (
        "optimizer",
        {"name": "tvlars", "variant": "reference_code", "minimum": 0.1},
        "optimizer",
        "reference_code has no minimum; leave it out, or take variant paper",
    ),
    ("dataset", {"name": "image-folder"}, "dataset.path", "required"),
    ("dataset", {"name": "image-folder", "path": ""}, "dataset.path", "at least 1 character"),
    ("dataset", {"name": "image-folder", "path": "/etc"}, "dataset.path", "a relative path without '..'"),
    ("dataset", {"name": "image-folder", "path": "a/../../b"}, "dataset.path", "a relative path without '..'"),
    ("dataset", {"name": "image-folder", "path": "a\0"}, "dataset.path", "a relative path without '..'"),
    ("dataset", {"name": "image-folder", "path": "."}, "dataset.path", "a relative path without '..'"),
    ("name", "a\0b", "name", "U+0000 (a control character), which does not print; leave it out"),
]


@pytest.mark.parametrize(("key", "value", "field", "remedy"), FIELDS, ids=[f"{f[2]}={f[1]}"[:60] for f in FIELDS])
def test_a_wrong_field_is_named_with_its_value_and_a_remedy(key, value, field, remedy):
    errors = wrong(small(**{key: value}))
    field = f"methods[0].{field}" if key in SETTINGS else field
    assert list(errors) == [field]
    assert remedy in errors[field][1]


IN_STPT = "it is a setting of the method now: methods: [{name: stpt, %s: …}]"
OLD = [
    ({"envelope": "linear"}, "envelope", "it is called lr_schedule now"),
    *(({key: value}, key, IN_STPT % key) for key, value in STPT.items() if key in SETTINGS),
    ({"methods": ["schedule"]}, "methods[0]", "this method is called fixed now"),
    ({"methods": [{"name": "sweep", "schedule": "linear"}]}, "methods[0].schedule", "it is called lr_schedule now"),
    ({"methods": [{"name": "tpe", "schedule": "linear"}]}, "methods[0].schedule", "it is called lr_schedule now"),
    ({"methods": [{"name": "fixed", "decay": "step"}]}, "methods[0].decay", "it is called lr_schedule now"),
    ({"methods": [{"name": "fixed", "preset": "lars-warm"}]}, "methods[0].preset", "it is called defaults now"),
    (
        {"methods": [{"name": "replay", "schedule": {"learning_rates": [0.1] * 10, "envelope": "linear"}}]},
        "methods[0].schedule.envelope",
        "it is called lr_schedule now",
    ),
    ({"lr_set": {"kind": "preset", "name": "mix"}}, "lr_set", "a set by its name is of the kind named now"),
    ({"lr_set": {"kind": "schedule", "phases": []}}, "lr_set", "sets one after another are of the kind phases now"),
]


@pytest.mark.parametrize(("changes", "field", "message"), OLD, ids=[field for _, field, _ in OLD])
def test_a_key_that_is_called_otherwise_now_is_refused_with_its_new_name(changes, field, message):
    [(found, (_, told))] = wrong(SMALL | changes).items()
    assert found == field
    assert message in told


@pytest.mark.parametrize(
    ("label", "fits"),
    [
        ("paper", True),
        ("a.b_c-9", True),
        ("", False),
        ("Paper", False),
        ("-a", False),
        ("x" * 51, False),
        ("a/b", False),
    ],
)
def test_labels(label, fits):
    document = SMALL | {"methods": ["stpt", {"name": "stpt", "label": label, "lr_set": "mix"}, "cosine"]}
    if not fits:
        assert list(wrong(document)) == ["methods[1].label"]
        return
    assert [method.label for method in parse(document).methods] == ["stpt", label, "cosine"]


def test_a_budget_relative_to_one_of_several_runs_of_stpt():
    methods = ["cosine", {"name": "stpt", "label": "paper"}, {"name": "stpt", "label": "short"}]
    document = SMALL | {"methods": methods}
    assert parse(document | {"budget": {"relative_to": "short"}}).budget.relative_to == "short"
    [(field, (value, message))] = wrong(document | {"budget": {"relative_to": "stpt"}}).items()
    assert (field, value) == ("budget.relative_to", "stpt")
    assert "the job has no run of stpt with this label; those of stpt are paper, short" in message
    assert list(wrong(document | {"budget": {"relative_to": "cosine"}})) == ["budget.relative_to"]


@pytest.mark.parametrize(
    ("lr_set", "field"),
    [
        ({"phases": [{"first_epoch": 1, "lr_set": {"factors": [1, 0]}}]}, "lr_set.phases[0].lr_set.factors[1]"),
        ({"phases": [{"first_epoch": 0, "lr_set": "mix"}]}, "lr_set.phases[0].first_epoch"),
        ({"phases": [{"first_epoch": 1, "lr_set": "mux"}]}, "lr_set.phases[0].lr_set.name"),
        ({"phases": [{"first_epoch": 1, "lr_set": {"phases": []}}]}, "lr_set.phases[0].lr_set"),
        ({"phases": []}, "lr_set.phases"),
        ({"stages": [{"factors": [1, 0]}]}, "lr_set.stages[0].factors[1]"),
        ({"stages": [{"factors": [1], "pretrain_share": 1.5}]}, "lr_set.stages[0].pretrain_share"),
        ({"stages": []}, "lr_set.stages"),
        ({"kind": "race", "factors": [1, 0.5]}, "lr_set.factors"),
        ({"kind": "race", "factors": [2, 1, 0]}, "lr_set.factors[2]"),
        ({"search_share": 0}, "lr_set.search_share"),
        ({"search_share": 0.91}, "lr_set.search_share"),
        ({"warmup_share": 1}, "lr_set.warmup_share"),
    ],
)
def test_paths_lead_into_a_schedule(lr_set, field):
    assert list(wrong(small(lr_set=lr_set))) == [field]


@pytest.mark.parametrize("firsts", [[3, 1], [1, 1], [1, 5, 4]])
def test_phases_must_ascend(firsts):
    phases = [{"first_epoch": first, "lr_set": "mix"} for first in firsts]
    [(field, (_, message))] = wrong(small(lr_set={"phases": phases})).items()
    assert (field, message) == ("lr_set", f"phases must begin at ascending epochs, not {firsts}; reorder them")


@pytest.mark.parametrize(
    ("number", "shown"), [("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), ("1e999", "inf")]
)
def test_a_number_that_is_none_is_refused_and_shown(number, shown):
    raw = json.dumps(small(initial_learning_rate=42)).replace("42", number).encode()
    assert wrong(raw) == {"initial_learning_rate": (shown, "Input should be a finite number")}


@pytest.mark.parametrize("missing", ["model", "dataset", "epochs"])
def test_a_missing_field_is_named(missing):
    document = small()
    del document[missing]
    assert wrong(document) == {missing: (None, "Field required")}


def test_every_wrong_field_is_named_at_once():
    document = small(epochs=0, model="x", warmup={"epochs": "1"}, bogus=1)
    assert set(wrong(document)) == {"epochs", "model", "methods[0].warmup.epochs", "bogus"}


def test_thousands_of_unknown_keys_are_refused_as_quickly_as_one():
    document = small(methods=[{"name": "stpt", **{f"key-{number}": 1 for number in range(4000)}}])
    begun = time.process_time()
    found = wrong(document)  # 0.7 s when each was compared with every key that there is
    assert time.process_time() - begun < 0.3
    assert len(found) == 4000
    assert found["methods[0].key-0"][1].startswith("unknown key; known: label, name, lr_set")
    assert found["methods[0].key-3999"] == (None, "Extra inputs are not permitted")


def test_the_value_is_the_one_given():
    assert wrong(small(epochs=True))["epochs"][0] is True
    assert wrong(small(epochs=-3))["epochs"][0] == -3
    assert wrong(small(initial_learning_rate=-0.5))["initial_learning_rate"][0] == -0.5
    assert wrong(small(model="resnet51"))["model"][0] == "resnet51"
    assert wrong(small(epochs=None))["epochs"][0] is None
    assert wrong(small(dataset="nope"))["dataset"][0] == "nope"
    assert wrong(small(optimizer={"name": "nope"}))["optimizer"][0] == "nope"
    assert wrong(small(pretrain={"iterations": [3]}))["methods[0].pretrain.iterations"][0] == "[3]"


@pytest.mark.parametrize("long", ["x" * 5000, [0] * 5000, 10**4000])
def test_a_long_value_is_cut_short(long):
    value = wrong(small(model=long))["model"][0]
    assert len(value) == 201
    assert value.endswith("…")


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{", b"[" * 1000, b'{"epochs":' + b"9" * 5000 + b"}", b"null", b"[]"])
def test_what_is_no_json_object_is_the_fault_of_the_body(raw):
    assert list(wrong(raw)) == ["body"]


@pytest.mark.parametrize("deep", ['{"model": ' * 5000, '{"model": ' * 5000 + "1" + "}" * 5000, "[" * 30_000])
def test_what_is_nested_too_deeply_is_the_fault_of_the_body(deep):
    assert list(wrong(deep.encode())) == ["body"]


@pytest.mark.parametrize(
    ("raw", "field", "value"),
    [
        (b'{"epochs": 1, "model": "lenet5", "epochs": 2}', "epochs", 2),
        (b'{"warmup": {"epochs": 1, "epochs": 1}}', "epochs", 1),
        (b'[{"a": {}, "a": [3]}]', "a", "[3]"),
    ],
)
def test_a_key_that_stands_there_twice_is_named(raw, field, value):
    assert wrong(raw) == {field: (value, "stands there twice; keep one of them")}


def test_no_phase_begins_after_the_last_epoch():
    phases = [{"first_epoch": first, "lr_set": "mix"} for first in (1, 10, 11, 12)]
    message = "after the last epoch (10); lower it, raise epochs, or leave the phase out"
    assert wrong(small(epochs=10, lr_set={"phases": phases})) == {
        "lr_set.phases[2].first_epoch": (11, message),
        "lr_set.phases[3].first_epoch": (12, message),
    }


def test_what_two_runs_find_wrong_with_the_set_they_share_is_told_once():
    phases = [{"first_epoch": 5, "lr_set": "mix"}]
    methods = [{"name": "stpt", "label": label, "warmup": {"epochs": 2}} for label in ("a", "b")]
    with pytest.raises(InvalidInput) as refusal:
        parse(small(epochs=10, lr_set={"phases": phases}, methods=methods))
    message = "epochs 3 to 4 have no set; begin at 3"
    assert refusal.value.errors == (FieldError("lr_set.phases[0].first_epoch", 5, message),)


def folder(image_size):
    return {"name": "image-folder", "path": "birds", "image_size": image_size}


@pytest.mark.parametrize(
    ("model", "dataset", "wanted"),
    [
        ("vgg16", "digits", "32 pixels or more, and those of digits have 28"),
        ("alexnet", "cifar10", "63 pixels or more, and those of cifar10 have 32"),
        ("inception_v3", folder(74), "75 pixels or more, and those of image-folder have 74"),
        ("vit_b_16", folder(100), "a multiple of 16 pixels, and those of image-folder have 100"),
        ("maxvit_t", folder(256), "a multiple of 224 pixels, and those of image-folder have 256"),
    ],
)
def test_a_model_must_take_the_datasets_images(model, dataset, wanted):
    [(field, (value, message))] = wrong(small(model=model, dataset=dataset)).items()
    assert (field, value) == ("model", model)
    assert message == (
        f"takes images of {wanted}; choose a model for small images (lenet5, resnet18-cifar) or a dataset with other "
        "images (image-folder has image_size)"
    )


@pytest.mark.parametrize(
    ("model", "dataset"), [("vgg16", "cifar10"), ("vit_h_14", "digits"), ("inception_v3", folder(75))]
)
def test_models_and_images_that_fit(model, dataset):
    assert parse(small(model=model, dataset=dataset)).model == model


def test_batch_normalisation_needs_two_samples_a_worker_where_one_pixel_is_left():
    assert wrong(small(model="resnet18", global_batch_size=4, workers=4)) == {
        "global_batch_size": (
            4,
            "one sample a worker is too little for the batch normalisation of resnet18 at 28 pixels; raise it to 8, or "
            "lower workers",
        )
    }
    assert wrong(small(model="resnet18", global_batch_size=12, workers=4, microbatch_size=2)) == {
        "microbatch_size": (
            2,
            "leaves a forward pass with one sample, which is too little for the batch normalisation of resnet18 at 28 "
            "pixels; raise it",
        )
    }
    parse(small(model="resnet18", global_batch_size=16, workers=4, microbatch_size=3))  # two passes of 2
    parse(small(model="resnet18", global_batch_size=8, workers=4))
    parse(small(model="resnet18", dataset=folder(33), global_batch_size=4, workers=4))
    parse(small(global_batch_size=4, workers=4))  # lenet5 has none


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "name", "factors", "phases", "first_epoch", "lr_set", "iterations", "relative"])
            | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200)
@given(changes=st.dictionaries(st.sampled_from([*JobSpec.model_fields, "learning_rate"]), JSON, min_size=1, max_size=3))
def test_whatever_comes_the_answer_is_a_spec_or_fields_that_json_can_carry(changes):
    try:
        errors = [] if parse(small(**changes)) else ["no spec"]
    except InvalidInput as error:
        errors = list(error.errors)
    for error in errors:
        assert error.field
        assert error.message
        assert len(json.dumps(error.value, allow_nan=False)) < 2000
    assert errors or "learning_rate" not in changes
