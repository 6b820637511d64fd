from functools import partial
from typing import Any

import pytest

from service.results.recommendation import PastRun, Recommendation, recommend, schedule_of, settled_learning_rate
from service.spec.job import JobSpec
from service.spec.methods.base import Schedule
from service.spec.methods.stpt import StptMethod
from service.store.records import EpochResult
from tests.builders import nested

STAGES = {"stages": [{"factors": [10, 3, 1, 0.3, 0.1]}, {"factors": [2, 1, 0.5]}]}


def run(job_id: str, *rates: float, val_accuracy: float = 0.9, **changes: Any) -> PastRun:
    """A run of stpt that chose these learning rates, one an epoch; its best epoch is the last but one."""
    spec, method, epochs = training(*rates, val_accuracy=val_accuracy, **changes)
    best = max(epochs, key=lambda epoch: epoch.val_accuracy)
    return PastRun(
        job_id,
        seed=0,
        optimizer=spec.optimizer.name,
        global_batch_size=spec.global_batch_size,
        lr_schedule=spec.lr_schedule,
        learning_rate=settled_learning_rate(spec, method, epochs),
        val_accuracy=best.val_accuracy,
        test_accuracy=best.test_accuracy,
        schedule=partial(schedule_of, spec, method, epochs),
    )


def settled(*rates: float, **changes: Any) -> float:
    """What a training that chose these learning rates, one an epoch, has settled on."""
    return settled_learning_rate(*training(*rates, **changes))


def training(*rates: float, val_accuracy: float = 0.9, **changes: Any) -> tuple[JobSpec, StptMethod, list[EpochResult]]:
    accuracies = [val_accuracy - 0.1] * len(rates)
    accuracies[max(0, len(rates) - 2)] = val_accuracy
    epochs = [
        EpochResult(number, rate, rate, accuracy, accuracy - 0.01)
        for number, (rate, accuracy) in enumerate(zip(rates, accuracies, strict=True), start=1)
    ]
    document = {"model": "lenet5", "dataset": "digits", "epochs": len(rates)} | changes
    spec = JobSpec.model_validate(nested(**document))
    [method] = spec.methods_of(StptMethod)
    return spec, method, epochs


def found(runs: list[PastRun], **asked: Any) -> Recommendation:
    recommendation = recommend(runs, **{"optimizer": None, "batch": None} | asked)
    assert recommendation is not None
    return recommendation


def test_what_a_run_has_settled_on() -> None:
    # two stages, each an epoch: the second one's choice stays, but for a rollback
    assert settled(1.0, 0.5, 0.5, 0.5, 0.1, lr_set=STAGES) == 0.5
    assert settled(0.005, 1.0, 0.5, 0.5, 0.5, lr_set=STAGES, warmup={"epochs": 1}) == 0.5
    assert settled(1.0, 0.5, lr_set=STAGES) == 0.5
    assert settled(1.0, lr_set=STAGES) == 1.0  # ended before its second stage
    # a race: what it came to in the first epoch stays, but for a rollback
    assert settled(1.0, 0.5) == 0.5
    assert settled(1.0, 1.0, 1.0, 0.5) == 1.0
    assert settled(0.005, 1.0, 1.0, 0.5, warmup={"epochs": 1}) == 1.0
    # a set that goes on searching: the median behind the warm-up
    assert settled(0.005, 0.4, 0.2, 0.1, lr_set="narrow", warmup={"epochs": 1}) == 0.2


def test_one_run_without_scaling() -> None:
    recommendation = found([run("a", 1.0, 0.5, 0.5, 0.5, lr_set=STAGES)])
    assert (recommendation.learning_rate, recommendation.low, recommendation.high) == (0.5, 0.5, 0.5)
    assert (recommendation.optimizer, recommendation.global_batch_size, recommendation.rule) == ("sgd", 64, "none")
    assert recommendation.note == "All evidence has batch 64; nothing was scaled."
    assert recommendation.schedule == Schedule(learning_rates=[1.0, 0.5, 0.5, 0.5], lr_schedule="linear")
    [one] = recommendation.evidence
    assert (one.job_id, one.learning_rate, one.scaled_learning_rate) == ("a", 0.5, 0.5)
    assert (one.val_accuracy, one.test_accuracy) == (0.9, pytest.approx(0.89))


def test_the_schedule_of_a_raced_run_has_its_warm_up() -> None:
    schedule = found([run("a", 0.3, 0.3, 0.3)]).schedule
    assert schedule == Schedule(learning_rates=[0.3, 0.3, 0.3], lr_schedule="linear", warmup_share=0.2)
    assert found([run("a", 0.3, lr_set={"warmup_share": 0})]).schedule == Schedule(
        learning_rates=[0.3], lr_schedule="linear"
    )


def test_the_middle_and_the_range_of_several_and_the_schedule_of_the_best() -> None:
    runs = [run("a", 0.1, 0.1), run("b", 0.2, 0.4, val_accuracy=0.95, lr_set=STAGES), run("c", 0.2, 0.2)]
    recommendation = found(runs)
    assert (recommendation.learning_rate, recommendation.low, recommendation.high) == (0.2, 0.1, 0.4)
    assert recommendation.schedule.learning_rates == [0.2, 0.4]
    assert found(runs[:2]).learning_rate == pytest.approx(0.2)  # geometric: between 0.1 and 0.4


@pytest.mark.parametrize(
    ("optimizer", "batch", "rate", "rule", "source"),
    [
        ("sgd", 256, 0.4, "linear", "in proportion to the batch (Goyal et al. 2017, arXiv 1706.02677)"),
        ("sgd", 16, 0.025, "linear", "Goyal"),
        ("adam", 256, 0.2, "sqrt", "with the square root of the batch (Malladi et al. 2022, arXiv 2205.10287)"),
        ("rmsprop", 16, 0.05, "sqrt", "Malladi"),
        ("adam", 64, 0.1, "none", "nothing was scaled"),
    ],
)
def test_another_batch_is_scaled(optimizer: str, batch: int, rate: float, rule: str, source: str) -> None:
    runs = [run("a", 0.1, 0.1, 0.1, optimizer=optimizer)]
    recommendation = found(runs, optimizer=optimizer, batch=batch)
    assert (recommendation.learning_rate, recommendation.rule) == (pytest.approx(rate), rule)
    assert (recommendation.low, recommendation.high) == (pytest.approx(rate), pytest.approx(rate))
    assert recommendation.schedule.learning_rates == pytest.approx([rate] * 3)
    assert source in recommendation.note
    [one] = recommendation.evidence
    assert (one.learning_rate, one.scaled_learning_rate) == (0.1, pytest.approx(rate))


def test_the_nearest_batch_is_the_evidence() -> None:
    runs = [run("a", 0.1, 0.1, global_batch_size=size) for size in (64, 256, 512)]
    assert [one.global_batch_size for one in found(runs, batch=256).evidence] == [256]
    # 128 lies as far from 64 as from 256: both, each scaled by itself
    between = found(runs, batch=128)
    assert [(one.global_batch_size, one.scaled_learning_rate) for one in between.evidence] == [(64, 0.2), (256, 0.05)]
    assert between.learning_rate == pytest.approx(0.1)
    assert between.note.startswith("The evidence has batch 64 and 256; for batch 128 ")


def test_optimizers_are_not_mixed() -> None:
    runs = [run("a", 0.1, 0.1), run("b", 0.001, 0.001, optimizer="adam", val_accuracy=0.95)]
    best = found(runs)
    assert (best.optimizer, best.learning_rate) == ("adam", 0.001)
    assert found(runs, optimizer="sgd").learning_rate == 0.1
    assert recommend(runs, optimizer="adamw", batch=None) is None
    assert recommend([], optimizer=None, batch=64) is None


def test_a_scaled_learning_rate_stays_one_that_a_spec_may_have() -> None:
    recommendation = found([run("a", 1e6, 1e6)], batch=2**20)
    assert (recommendation.learning_rate, recommendation.schedule.learning_rates) == (1e6, [1e6, 1e6])
