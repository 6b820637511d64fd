"""The benchmark of regret to the oracle: what it trains, and what it makes of the outcomes."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.regret import (
    HELD_OUT,
    QUICK,
    SEARCHES,
    TUNED,
    WORKLOADS,
    Outcome,
    Run,
    candidates_of_oracle,
    outcome_of,
    ranks_of,
    recorded,
    row_of,
    runs_of,
    searched,
    summary_of,
)
from benchmarks.trainings import Result
from service.spec.catalog import DATASETS
from service.spec.job import JobSpec
from service.wire.worker import EpochRecord


def outcome(method: str, rate: float | None, seed: int, test_accuracy: float, *, samples: int = 59_904) -> Outcome:
    run = Run("mn-mlp-sgd", method, rate, seed)
    return Outcome(run, run.spec, test_accuracy, samples, samples // 8, 1.0)


def epoch(number: int, samples: int) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        phase="scheduled",
        learning_rate=0.1,
        first_learning_rate=0.1,
        last_learning_rate=0.1,
        train_loss=1.0,
        val_loss=1.0,
        val_accuracy=0.5,
        test_accuracy=0.5,
        iterations=samples // 64,
        samples=samples,
        evaluation_samples=0,
        seconds=1.0,
        pretrain_seconds=0.0,
        main_train_seconds=1.0,
        branches=[],
    )


# --- what is trained -------------------------------------------------------------------------------------


def test_the_workloads_differ_in_kind() -> None:
    assert not set(TUNED) & set(HELD_OUT)
    assert {workload.model for workload in WORKLOADS.values()} == {"lenet5", "lenet5-bn", "mlp", "mlp-ln"}
    assert {workload.optimizer for workload in WORKLOADS.values()} == {"sgd", "adam", "adamw", "lars", "lamb"}
    iterations = [workload.samples // workload.batch for workload in WORKLOADS.values()]
    assert (min(iterations), max(iterations)) == (8, 312)
    assert set(QUICK) & set(TUNED)
    assert set(QUICK) & set(HELD_OUT)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_run_is_a_job_on_samples_that_are_there(name: str) -> None:
    for run in runs_of(name, 1, SEARCHES):
        spec = JobSpec.model_validate(run.spec)
        assert spec.methods[0].name == run.method
        held_out = spec.dataset.validation_fraction
        assert WORKLOADS[name].samples <= DATASETS[WORKLOADS[name].dataset].train_samples * (1 - held_out)


def test_the_oracle_has_eight_learning_rates_of_each_kind() -> None:
    sgd = candidates_of_oracle("sgd")
    assert [rate for method, rate in sgd if method == "linear"] == [
        0.0078125, 0.015625, 0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0,
    ]  # fmt: skip
    assert [rate for method, rate in sgd if method == "schedule-free"] == [
        0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0,
    ]  # fmt: skip
    assert len(sgd) == 24
    assert {method for method, _ in candidates_of_oracle("lars")} == {"linear", "cosine"}


def test_runs_are_the_default_the_methods_and_those_of_the_oracle_with_each_seed() -> None:
    runs = runs_of("fm-mlp-lamb", 2, [])
    assert len(runs) == len(set(runs)) == 2 * (1 + 12 + 16)
    assert runs[:2] == [Run("fm-mlp-lamb", "stpt", None, 0), Run("fm-mlp-lamb", "stpt", None, 1)]
    assert runs_of("fm-mlp-lamb", 1, ["pb2"])[13] == Run("fm-mlp-lamb", "pb2", None, 0)


def test_the_default_is_given_nothing_but_the_budget() -> None:
    assert Run("cf-lenet5bn-lars", "stpt", None, 3).spec == {
        "model": "lenet5-bn",
        "dataset": "cifar10",
        "optimizer": "lars",
        "global_batch_size": 512,
        "epochs": 30,
        "budget": {"epochs": 30},
        "initial_learning_rate": 1.0,
        "seed": 3,
        "methods": [{"name": "stpt"}],
    }
    assert WORKLOADS["cf-lenet5bn-lars"].budget == 30 * 4096


# --- outcomes --------------------------------------------------------------------------------------------


def test_what_is_searched_is_what_epochs_take_in_excess_of_the_cheapest() -> None:
    assert searched([epoch(1, 640), epoch(2, 256), epoch(3, 64), epoch(4, 64)]) == 576 + 192
    assert searched([]) == 0


def test_the_outcome_of_a_training() -> None:
    run = Run("mn-mlp-sgd", "cosine", 0.5, 1)
    result = Result((run,), 0.9512, 59_904, 3.5, [epoch(1, 640), epoch(2, 64)], None)
    assert outcome_of(result) == Outcome(run, run.spec, 95.12, 59_904, 576, 3.5, None)


def test_a_training_that_diverges_answers_at_random() -> None:
    result = Result(
        (Run("mn-mlp-sgd", "cosine", 0.5, 1),), 0.73, 59_904, 3.5, [], "epoch 1: the loss became non-finite"
    )
    assert outcome_of(result).test_accuracy == 10.0


def test_records_of_what_would_be_trained_otherwise_today_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    kept = outcome("cosine", 0.5, 0, 95.0)
    other = replace(kept, spec=kept.spec | {"epochs": 10})
    path.write_text("".join(json.dumps(asdict(told)) + "\n" for told in (kept, other)))
    assert list(recorded(path)) == [kept]
    assert list(recorded(tmp_path / "absent")) == list(recorded(None)) == []


# --- what it comes to ------------------------------------------------------------------------------------

OUTCOMES = [
    outcome("stpt", None, 0, 94.0, samples=59_392),
    outcome("stpt", None, 1, 95.0, samples=59_904),
    outcome("linear", None, 0, 94.2),
    outcome("linear", None, 1, 94.8),
    outcome("dog", None, 0, 10.0),
    outcome("dog", None, 1, 94.0),
    outcome("cosine", 0.125, 0, 95.2),
    outcome("cosine", 0.125, 1, 95.4),
    outcome("linear", 0.25, 0, 96.0),  # the best of all, but not over the seeds
    outcome("linear", 0.25, 1, 94.0),
]
ROW = {
    "budget": 59_904,
    "oracle": {"test_accuracy": 95.3, "method": "cosine", "learning_rate": 0.125},
    "default": {"test_accuracy": 94.5, "spread": 0.71, "cost": 0.9957, "search_share": 0.1245},
    "regret": 0.8,
    "methods": {"linear": 94.5, "dog": 52.0},
}


def test_the_row_of_a_workload() -> None:
    assert row_of("mn-mlp-sgd", OUTCOMES) == ROW
    one_seed = row_of("mn-mlp-sgd", [outcome for outcome in OUTCOMES if outcome.run.seed == 0])
    assert one_seed["oracle"] == {"test_accuracy": 96.0, "method": "linear", "learning_rate": 0.25}
    assert one_seed["default"]["spread"] == 0.0


def test_ranks_are_shared_by_equals() -> None:
    assert ranks_of(ROW) == {"linear": 1, "stpt": 1, "dog": 3}


def test_the_last_line() -> None:
    ahead = ROW | {"regret": -0.1, "methods": {"linear": 95.0, "dog": 96.0}}
    assert summary_of({"a": ROW, "b": ahead}) == {
        "workloads": {"a": ROW, "b": ahead},
        "mean_regret": 0.35,
        "worst_regret": 0.8,
        "mean_rank_of_default": 2.0,
    }
