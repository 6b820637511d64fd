from typing import Any

from forerun.display import tables
from service.wire.answers import ExperimentFacts, Job, Plan, SelectorReplay, TrialResult
from tests.unit.forerun import service_double as double


def job(**changes: Any) -> Job:
    return Job.model_validate(double.job(**changes))


def succeeded(**changes: Any) -> Job:
    return Job.model_validate(double.succeeded(**changes))


def test_the_table_of_a_selector_s_replay() -> None:
    items = [
        {"trial": 1, "epoch": 2, "recorded_learning_rate": 0.1, "learning_rate": 0.2, "regret": 0.0125},
        {"trial": 1, "epoch": 3, "recorded_learning_rate": 0.05, "learning_rate": None, "regret": None},
    ]
    replayed = {"job_id": "job-1", "selector": {"name": "greedy"}, "agreement": 0.25, "items": items}
    assert tables.replay_table(SelectorReplay.model_validate(replayed)) == (
        "epoch  recorded  greedy  regret\n2      0.1       0.2     0.0125\n3      0.05\nthe same in 25%"
    )
    two = {**replayed, "items": [items[0], items[1] | {"trial": 2}]}
    assert tables.replay_table(SelectorReplay.model_validate(two)) == (
        "trial  epoch  recorded  greedy  regret\n1      2      0.1       0.2     0.0125\n2      3      0.05\n"
        "the same in 25%"
    )
    nothing = tables.replay_table(SelectorReplay.model_validate({**replayed, "agreement": None, "items": []}))
    assert nothing == "epoch  recorded  greedy  regret\nno epoch yet"


def test_a_curve_among_the_hyperparameters_is_too_long_for_a_cell() -> None:
    curve = {"learning_rates": [1e-7, 1e-6, 1e-5], "smoothed_losses": [2.3, 2.2, 2.1]}
    config = {"learning_rate": 0.25, "range_test": curve, "optimizer": {"name": "sgd"}}
    _, row = tables.trial_table([TrialResult.model_validate(double.trial_result(config=config))]).splitlines()
    assert row.endswith("learning_rate=0.25 range_test=… optimizer={'name': 'sgd'}")


def test_a_name_commands_no_terminal_and_has_one_line() -> None:
    """Jobs may be older than the rule about the characters of names."""
    header, row = tables.job_table([job(name="\x1b[2J\x9b31mtwo\nlines\ttab\u202e")]).split("\n")
    assert header.endswith("name")
    assert row.endswith("\ufffd[2J\ufffd31mtwo\ufffdlines\ufffdtab\ufffd")


def run_cost(label: str, trainings: int, samples: int, iterations: float, relative_to_sweep: float) -> double.Document:
    return {
        "label": label,
        "method": label,
        "trainings": trainings,
        "samples": samples,
        "iterations": iterations,
        "relative_to_sweep": relative_to_sweep,
        "pretrain_iterations": None,
        "main_train_iterations": None,
        "search_area": [],
    }


def test_the_table_of_a_plan() -> None:
    plan = {
        "train_samples": 1293,
        "iterations_per_epoch": 20,
        "runs": [
            run_cost("stpt", 1, 6528, 102.0, 0.2125) | {"pretrain_iterations": 2, "main_train_iterations": 18},
            run_cost("sweep", 8, 30720, 480.0, 1.0),
        ],
    }
    assert tables.plan_table(Plan.model_validate(plan)) == (
        "an epoch: 20 iterations\n"
        "run    trainings  samples  iterations  of the sweep  Pre-train  Main-train\n"
        "stpt   1          6528     102         21.2%         2          18\n"
        "sweep  8          30720    480         100.0%        -          -"
    )


def test_the_table_of_studies() -> None:
    study = {
        "name": "mix",
        "paper": "STPT",
        "figures": "10, 11",
        "description": "All of it.",
        "jobs": ["a", "b"],
        "scales": ["paper"],
    }
    assert tables.experiment_table([ExperimentFacts.model_validate(study)]) == (
        "name  paper  figures  jobs  description\nmix   STPT   10, 11   2     All of it."
    )


def test_tables_have_a_line_a_row() -> None:
    jobs = [job(), succeeded(id="job-22", name="second", model="resnet18-cifar")]
    assert tables.job_table(jobs) == (
        "job     state      model           dataset  epochs  test acc  name\n"
        "job-1   queued     lenet5          digits   0/3\n"
        "job-22  succeeded  resnet18-cifar  digits   3/3     0.9375    second"
    )
    assert tables.job_table([]) == "job  state  model  dataset  epochs  test acc  name"
