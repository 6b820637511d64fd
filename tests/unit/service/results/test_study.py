"""The table of a study; expected numbers by hand."""

import json
import math
from typing import Any

import pytest

from service.results.comparison import Statistic
from service.results.study import TrialOutcome, common_to_a_table, study_rows
from service.spec.experiments import EXPERIMENTS, documents
from service.spec.job import JobSpec
from service.spec.methods.study import StudyMethod
from service.validation.door import parse_spec
from tests.builders import spec_document

STUDY = StudyMethod.model_validate(
    {
        "batch_sizes": [64, 128],
        "variants": [{"name": "none", "method": "fixed"}, {"name": "searched", "method": "stpt"}],
    }
)


def test_rows_are_variants_by_batch_sizes_over_seeds():
    trials = [
        TrialOutcome("none", 64, 0, "completed", [0.5, 0.9, 0.8]),
        TrialOutcome("none", 64, 1, "completed", [0.5, 0.6, 0.6]),
        TrialOutcome("none", 128, 0, "running", [0.7]),
        TrialOutcome("searched", 64, 0, "failed", []),
        TrialOutcome("searched", 128, 0, "completed", [0.75]),
    ]
    rows = {(row.variant, row.global_batch_size): row for row in study_rows([STUDY], trials)}
    assert list(rows) == [("none", 64), ("none", 128), ("searched", 64), ("searched", 128)]
    row = rows["none", 64]
    assert (row.seeds, row.diverged) == (2, 0)
    assert (row.final_test_accuracy.mean, row.best_test_accuracy.mean) == pytest.approx((0.7, 0.75))
    # of two values the sample standard deviation is their distance over the square root of 2
    assert row.final_test_accuracy.spread == pytest.approx(0.2 / math.sqrt(2))
    assert row.best_test_accuracy.spread == pytest.approx(0.3 / math.sqrt(2))
    assert row.curve == pytest.approx([0.5, 0.75, 0.7])
    for nothing in (rows["none", 128], rows["searched", 64]):
        assert (nothing.seeds, nothing.final_test_accuracy, nothing.curve) == (0, Statistic(None, None), [])
    assert rows["searched", 128].final_test_accuracy == Statistic(0.75, None)


def test_a_trial_that_diverged_counts_with_nothing_in_the_end():
    trials = [
        TrialOutcome("none", 64, 0, "completed", [0.7, 0.75, 0.8]),
        TrialOutcome("none", 64, 1, "diverged", [0.6, 0.0]),
        TrialOutcome("none", 128, 0, "diverged", []),
        TrialOutcome("searched", 64, 0, "diverged", [0.6]),
    ]
    both, alone, at_once, _ = study_rows([STUDY], trials)
    assert (both.seeds, both.diverged) == (2, 1)
    assert both.final_test_accuracy.mean == pytest.approx(0.4)
    assert both.best_test_accuracy.mean == pytest.approx(0.7)
    assert both.curve == pytest.approx([0.65, 0.375, 0.4])  # from the epoch on in which it diverged it has 0
    # of a search the epoch that failed is in no record
    assert (alone.seeds, alone.diverged, alone.best_test_accuracy.mean) == (1, 1, 0.0)
    assert (at_once.final_test_accuracy.mean, at_once.best_test_accuracy.mean, at_once.curve) == (0.0, 0.6, [0.6, 0.0])


def test_of_two_trials_with_the_same_seed_the_later_one_that_ended_counts():
    accuracies = [("completed", [0.5]), ("completed", [0.75]), ("running", [0.9]), ("failed", [])]
    row, *_ = study_rows([STUDY], [TrialOutcome("none", 64, 0, *ended) for ended in accuracies])
    assert (row.seeds, row.final_test_accuracy) == (1, Statistic(0.75, None))


def test_several_studies_are_one_table():
    other = STUDY.model_copy(update={"batch_sizes": [128, 256], "variants": STUDY.variants[:1]})
    trials = [TrialOutcome("none", 128, 0, "completed", [0.5]), TrialOutcome("none", 128, 1, "completed", [0.75])]
    trials += [TrialOutcome("none", 256, 0, "completed", [0.25])]
    rows = study_rows([STUDY, other], trials)
    assert [(row.variant, row.global_batch_size, row.seeds, row.final_test_accuracy.mean) for row in rows] == [
        ("none", 64, 0, None),
        ("none", 128, 2, 0.625),
        ("searched", 64, 0, None),
        ("searched", 128, 0, None),
        ("none", 256, 1, 0.25),
    ]


def test_jobs_of_one_table_may_differ_in_their_points_and_seeds():
    def common(**changes):
        return common_to_a_table(JobSpec.model_validate(spec_document(methods=[STUDY.model_dump()], **changes)))

    others = {"name": "b", "global_batch_size": 128, "microbatch_size": 32, "workers": 2, "seed": 3, "seeds": 2}
    assert common(**others) == common()
    assert common()["variant 'none' at batch 64"] == STUDY.variants[0]
    for field, value in {"dataset": "mnist", "epochs": 7, "initial_learning_rate": 0.3, "optimizer": "lars"}.items():
        assert [name for name, its in common(**{field: value}).items() if its != common()[name]] == [field]


@pytest.mark.parametrize("name", ["large-batches", "layer-wise-optimizers", "tvlars-lambda"])
def test_the_studies_of_each_of_the_papers_experiments_are_one_table(name: str):
    experiment = EXPERIMENTS[name]
    for scale in experiment.scales:
        found: dict[str, Any] = {}
        for document in documents(experiment, scale, {}, 100, "papers"):
            spec = parse_spec(json.dumps(document).encode())
            if any(isinstance(method, StudyMethod) for method in spec.methods):
                assert all(found.setdefault(key, value) == value for key, value in common_to_a_table(spec).items())


def test_a_download_makes_no_other_table():
    study = STUDY.model_dump(mode="json")
    one, other = (
        common_to_a_table(
            JobSpec(model="lenet5", dataset={"name": "mnist", "download": download}, epochs=1, methods=[study])
        )
        for download in (True, False)
    )
    assert one == other
