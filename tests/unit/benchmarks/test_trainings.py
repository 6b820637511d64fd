"""The trainings of benchmarks, within the budget of their spec."""

from pathlib import Path
from typing import Any

from benchmarks.trainings import Task, run

SPEC: dict[str, Any] = {
    "model": "lenet5",
    "dataset": "digits",
    "global_batch_size": 32,
    "epochs": 5,
    "methods": ["cosine"],
}


def test_a_training_takes_its_budget(tmp_path: Path) -> None:
    result = run(Task(("cosine",), SPEC | {"budget": {"epochs": 2}}, 1, 64, 32), tmp_path)
    assert [record.samples for record in result.records] == [64, 64]
    assert result.records[-1].last_learning_rate < 0.02  # of 0.1: the cosine ends with the budget
    assert result.samples == 128


def test_a_training_without_a_budget_takes_its_epochs(tmp_path: Path) -> None:
    result = run(Task(("cosine",), SPEC, 1, 64, 32), tmp_path)
    assert len(result.records) == 5
    assert result.samples == 320
