"""Trainings of stpt without a race within a budget: what they spend is what was forecast. An epoch of digits has 26
iterations of 48."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from service.algorithms.cost import forecast
from service.algorithms.epoch_plan import samples_per_epoch
from service.spec.job import JobSpec
from service.wire.worker import EpochRecord
from tests.builders import spec_document
from tests.unit.workers.methods.test_scheduled import Records
from tests.unit.workers.methods.test_stpt import resumed
from tests.unit.workers.ranks import CPU, NETS, Ranks, digits, stpt_of, trainer_of
from workers.engine.groups import Workers
from workers.methods.stpt import Stpt
from workers.models import build as models_build
from workers.trainings import spec_of_training, train_job

pytest_plugins = ["tests.unit.workers.ranks"]

SEARCH: dict[str, Any] = {"global_batch_size": 48, "initial_learning_rate": 0.02, "lr_schedule": "linear"}
# from 0.001 an end is best, beyond which a stage goes on where it may
STAGES = {"stages": [{"factors": [3, 1, 0.3], "pretrain_share": 0.5}, {"factors": [2, 1, 0.5]}], "max_extensions": 4}
PHASES = {
    "phases": [{"first_epoch": 1, "lr_set": {"factors": [2, 1, 0.5]}}, {"first_epoch": 3, "lr_set": {"factors": [1]}}]
}
SETS: dict[str, dict[str, Any]] = {
    "absolute": {"lr_set": {"learning_rates": [0.05, 0.02, 0.01]}},
    "relative": {"lr_set": {"factors": [1.5, 1, 0.7]}, "pretrain": {"iterations": 5}},
    "mix": {"lr_set": "mix", "warmup": {"epochs": None}},
    "phases": {"lr_set": PHASES, "warmup": {"epochs": 1}},
    "stages": {"lr_set": STAGES, "initial_learning_rate": 0.001, "metric": "val_loss"},
    "short epochs": {"lr_set": {"factors": [2, 1, 0.5]}, "main_train": {"iterations": 6}},
}


def trained(spec: JobSpec) -> list[EpochRecord]:
    """The epochs of the job's stpt, in the world at hand."""
    data = digits()
    own = spec_of_training(spec, spec.methods[0], spec.seed, samples_per_epoch(spec, len(data.train)), None)
    with patch.dict(models_build.BUILDERS, {spec.model: NETS["plain"]}):
        stpt = stpt_of(trainer_of(own, data, Workers(CPU)))
    return list(stpt.epochs())


def spent(spec: JobSpec) -> int:
    records = trained(spec)
    assert [(record.retries, record.rollbacks) for record in records] == [(0, 0)] * len(records)
    return sum(record.samples for record in records)


@pytest.mark.parametrize("budget", [{"epochs": 4}, {"epochs": 6.6}, {"samples": 9999}])
@pytest.mark.parametrize("name", SETS)
def test_what_is_spent_is_what_was_forecast(name: str, budget: dict[str, Any]) -> None:
    spec = JobSpec.model_validate(spec_document(**SEARCH | SETS[name] | {"budget": budget}))
    [cost] = forecast(spec, len(digits().train))
    assert spent(spec) == cost.samples <= (budget.get("samples") or budget["epochs"] * 26 * 48)


@pytest.mark.parametrize("batch", ["global", "per_worker"])
def test_what_is_spent_by_several_workers_is_what_was_forecast(ranks: Ranks, batch: str) -> None:
    """Three branches on two workers: one each at a time, of the global batch or of half of it."""
    changes = SEARCH | SETS["relative"] | {"pretrain": {"iterations": 5, "batch": batch}}
    spec = JobSpec.model_validate(spec_document(**changes, workers=2, budget={"epochs": 5}))
    [cost] = forecast(spec, len(digits().train))
    assert ranks(2, spent, spec) == [cost.samples] * 2
    assert cost.samples <= 5 * 26 * 48


def test_stages_try_no_more_than_they_say() -> None:
    without, within = (
        trained(JobSpec.model_validate(spec_document(**SEARCH | SETS["stages"] | {"budget": budget})))
        for budget in (None, {"epochs": 6})
    )
    assert len(without[0].branches) > 3
    assert [len(epoch.branches) for epoch in within[:3]] == [3, 3, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_within_a_budget_that_goes_on_ends_with_the_same_bits(ranks: Ranks, workers: int) -> None:
    """4 epochs of 26 iterations, 13 of the first and 2 of the second with three candidates: 26 + 4 iterations more."""
    changes = SEARCH | SETS["stages"] | {"epochs": 4, "budget": {"samples": 134 * 48}}
    [digests, *others] = ranks(workers, resumed, "batch-norm", changes, 2)
    assert others == [digests] * (workers - 1)
    assert len(set(digests)) == 1


def test_a_rescue_may_go_beyond() -> None:
    """Nothing is planned for a Main-train that is undone: of these epochs of 22 iterations, 20."""
    spec = JobSpec.model_validate(spec_document(**SEARCH | SETS["absolute"] | {"budget": {"epochs": 4}}))
    [cost] = forecast(spec, len(digits().train))
    with patch.object(Stpt, "_failed", side_effect=[True, *[False] * 9]):
        assert sum(record.samples for record in trained(spec)) == cost.samples + 20 * 48


def test_each_run_but_the_one_that_measures_keeps_the_budget(tmp_path: Path) -> None:
    """`short` takes 2 epochs of 26 iterations. Thrice that are 6 for a cosine, and for the other run 6 of 22: two
    branches more of 2 make them 26."""
    short = {"name": "stpt", "label": "short", "lr_set": {"factors": [1]}}
    other = {"name": "stpt", "lr_set": {"factors": [2, 1, 0.5]}}
    document = spec_document(**SEARCH | {"epochs": 2, "methods": [other, "cosine", short]})
    spec = JobSpec.model_validate(document | {"budget": {"relative_to": "short", "times": 3}})
    records = Records()
    with patch.dict(models_build.BUILDERS, {spec.model: NETS["plain"]}):
        for _ in train_job(
            spec, digits(), Workers(CPU), points=(), trials=(), attempt=1, folder=tmp_path, recorder=records
        ):
            pass
    taken = {label: sum(one.samples for one in records.all if one.label == label) for label in ("short", "stpt")}
    assert taken == {"short": 2 * 26 * 48, "stpt": 6 * 26 * 48}
    assert [(one.label, one.epochs) for one in records.ended] == [("stpt", 6), ("cosine", 6)]
