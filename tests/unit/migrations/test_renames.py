"""Stored documents from before revision 0007, as that service wrote them, and what they are from then on."""

import pytest

from migrations.renames import renamed_config, renamed_event, renamed_spec
from service.spec.job import JobSpec

GUARDS = {"extend": True, "skip_dead": True, "rollback": True, "max_accuracy_drop": 0.2, "rescale_momentum": False}
SETTINGS = {
    "warmup": {"epochs": 1, "learning_rate": 0.005},
    "pretrain": {"weights": "raw", "iterations": 3, "placement": "split", "batch": "global", "max_retries": 2},
    "main_train": {"iterations": None},
    "metric": "val_accuracy",
    "selector": {"name": "tolerance", "tolerance": 0.05},
    "guards": GUARDS,
    "audit": {"every": 5, "branches": 2},
}
NARROW = {"kind": "preset", "name": "narrow", "max_learning_rate": 1.0}
SCHEDULE = {"learning_rates": [0.1, 0.2], "envelope": "cosine", "warmup_epochs": 1}
WARM = {"kind": "linear", "epochs": 2}
OLD = {
    "name": "",
    "experiment": "",
    "preset": None,
    "model": "lenet5",
    "dataset": {"name": "digits", "download": False, "validation_fraction": 0.1, "train_samples": None},
    "epochs": 2,
    "lr_set": {"kind": "schedule", "phases": [{"first_epoch": 1, "lr_set": NARROW}]},
    "envelope": "linear",
    **SETTINGS,
    "methods": [
        {"name": "stpt", "scaling": None},
        {"name": "sweep", "learning_rates": None, "schedule": "cosine"},
        {
            "name": "schedule",
            "preset": None,
            "learning_rate": 0.1,
            "scaling": None,
            "warmup": WARM,
            "decay": {"kind": "step", "factor": 0.1, "milestones": [0.5]},
        },
        {"name": "replay", "job": "job-1", "schedule": SCHEDULE},
        {
            "name": "tpe",
            "search_space": {"envelope": {"choice": ["linear", "cosine"]}},
            "schedule": None,
            "max_trials": 3,
            "gpus_per_trial": 1.0,
        },
        {
            "name": "study",
            "batch_sizes": [64],
            "variants": [{"name": "a", "method": {"name": "stpt", "scaling": None}, "optimizer": None}],
            "gpus_per_trial": 1.0,
        },
    ],
}


def test_an_old_spec_is_the_same_job_in_new_words() -> None:
    spec = JobSpec.model_validate(renamed_spec(OLD))
    stpt, sweep, fixed, replay, tpe, study = spec.methods
    assert [method.label for method in spec.methods] == ["stpt", "sweep", "schedule", "replay", "tpe", "study"]
    for method in (stpt, study.variants[0].method):
        assert {key: method.model_dump()[key] for key in SETTINGS} == SETTINGS
    assert (spec.lr_schedule, spec.lr_set.phases[0].lr_set.name) == ("linear", "narrow")
    assert (sweep.lr_schedule, fixed.name, fixed.lr_schedule.kind, fixed.warmup.epochs) == (
        "cosine",
        "fixed",
        "step",
        2,
    )
    assert (replay.schedule.lr_schedule, replay.schedule.rescale_momentum) == ("cosine", False)
    assert list(tpe.search_space) == ["lr_schedule"]


def test_what_has_the_new_words_already_stays_as_it_is() -> None:
    once = renamed_spec(OLD)
    assert renamed_spec(once) == once
    default = JobSpec(model="lenet5", dataset={"name": "digits"}, epochs=3).model_dump(mode="json")
    assert renamed_spec(default) == default


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"state": "queued"}, {"state": "queued"}),
        ({"method": "tpe", "trial": 2}, {"label": "tpe", "method": "tpe", "trial": 2}),
        ({"method": "schedule", "trial": 1}, {"label": "schedule", "method": "fixed", "trial": 1}),
        (
            {"method": "pbt", "config": {"envelope": "linear", "learning_rate": 0.1}},
            {"label": "pbt", "method": "pbt", "config": {"lr_schedule": "linear", "learning_rate": 0.1}},
        ),
    ],
)
def test_an_event_tells_the_label_of_its_run(old: dict, new: dict) -> None:
    assert renamed_event(old) == renamed_event(new) == new


def test_the_hyperparameters_of_a_search() -> None:
    assert renamed_config({"envelope": "linear", "optimizer.momentum": 0.9}) == {
        "lr_schedule": "linear",
        "optimizer.momentum": 0.9,
    }
