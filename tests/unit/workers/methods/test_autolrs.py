"""A training by AutoLRS: nothing but the learning rate is left of its trials, which count and are recorded as
branches."""

import math
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from service.algorithms.autolrs import Series, Tried, forecast_loss, propose
from service.algorithms.cost import forecast
from service.errors import Diverged
from service.spec.job import JobSpec
from service.wire.worker import EpochRecord
from tests.builders import spec_document
from tests.unit.workers.methods.test_lr_range_test import SHORT, TRAIN_SAMPLES, Told, timeless
from tests.unit.workers.ranks import CPU, NETS, Ranks, digits, make_trainer
from workers.engine.groups import Workers
from workers.engine.seeds import derived_seed
from workers.methods import make_training
from workers.methods.autolrs import AutoLrs
from workers.models import build as models
from workers.trainings import train_job

pytest_plugins = ["tests.unit.workers.ranks"]

INTERVAL = [0.01, 0.3]
# stages of 1, 2, 2 and 1 epochs of six iterations; trials of four
METHOD: dict[str, Any] = {
    "name": "autolrs",
    "search_interval": INTERVAL,
    "trials": 3,
    "stage_iterations": 6,
    "max_stage_iterations": 12,
}
EPOCHS, SEARCHES = 6, (1, 2, 4, 6)
TIMES = ("seconds", "pretrain_seconds", "main_train_seconds")


def made(net: str, method: dict[str, Any] = METHOD, **changes: Any) -> AutoLrs:
    with patch.dict(models.BUILDERS, {"lenet5": NETS[net]}):
        spec = JobSpec.model_validate(spec_document(**{**SHORT, "epochs": EPOCHS, **changes, "methods": [method]}))
        training = make_training(spec.methods[0], 1, spec, digits(TRAIN_SAMPLES), Workers(CPU))
        assert isinstance(training, AutoLrs)
        return training


def trained(net: str, method: dict[str, Any] = METHOD, **changes: Any) -> tuple[list[EpochRecord], str]:
    training = made(net, method, **changes)
    return list(training.epochs()), training.trainer.state.digest()


@pytest.mark.parametrize(
    ("net", "optimizer"),
    [("plain", "sgd"), ("batch-norm", "sgd"), ("dropout", "sgd"), ("batch-norm", "adamw"), ("plain", "tvlars")],
)
def test_it_ends_with_the_very_weights_of_a_replay(net: str, optimizer: str) -> None:
    """Trials leave no trace, and the schedule of the records tells all that is left of the training."""
    records, end = trained(net, optimizer=optimizer)
    rates = [record.learning_rate for record in records]
    method = made(net).spec.methods[0]
    schedule = method.schedule_of(rates, made(net).spec, {})
    with patch.dict(models.BUILDERS, {"lenet5": NETS[net]}):
        replay = {"name": "replay", "schedule": schedule.model_dump()}
        document = spec_document(**{**SHORT, "epochs": EPOCHS, "optimizer": optimizer, "methods": [replay]})
        spec = JobSpec.model_validate(document)
        plain = make_training(spec.methods[0], 1, spec, digits(TRAIN_SAMPLES), Workers(CPU))
    its = list(plain.epochs())
    assert plain.trainer.state.digest() == end
    its_own = {"label", "phase", "branches", "iterations", "samples", "evaluation_samples", *TIMES}
    assert [r.model_dump(exclude=its_own) for r in records] == [r.model_dump(exclude=its_own) for r in its]


def test_each_stage_is_recorded_with_its_trials() -> None:
    records, _ = trained("plain")
    assert [record.epoch for record in records if record.phase == "stpt"] == list(SEARCHES)
    for record in records:
        branches = record.branches
        if record.epoch not in SEARCHES:
            before = records[record.epoch - 2].learning_rate
            assert (record.phase, branches, record.learning_rate) == ("scheduled", [], before)
            continue
        assert [branch.number for branch in branches] == [1, 2, 3]
        assert len({branch.learning_rate for branch in branches}) == 3
        assert all(INTERVAL[0] <= branch.learning_rate <= INTERVAL[1] for branch in branches)
        assert [(branch.iterations, branch.samples) for branch in branches] == [(4, 4 * 48)] * 3
        [chosen] = [branch for branch in branches if branch.state == "chosen"]
        assert chosen.learning_rate == record.learning_rate == record.first_learning_rate == record.last_learning_rate
        assert chosen.metric == min(branch.metric for branch in branches if branch.metric is not None)
        assert record.pretrain_seconds > 0


def test_what_it_costs_is_what_was_foreseen() -> None:
    """To the sample; in the loop each record is held against the loop's own counter, too (workers.methods.base)."""
    records, _ = trained("plain")
    assert [record.iterations for record in records] == [18, 18, 6, 18, 6, 18]
    assert [record.samples for record in records] == [48 * iterations for iterations in (18, 18, 6, 18, 6, 18)]
    spec = made("plain").spec
    assert sum(record.samples for record in records) == forecast(spec, TRAIN_SAMPLES)[0].samples
    # 144 to validate and 360 to test with; behind a longest stage each of three trials is judged four times
    assert [record.evaluation_samples for record in records] == [504, 504, 504, 504 + 12 * 144, 504, 504 + 12 * 144]


@pytest.mark.parametrize("net", ["plain", "batch-norm", "dropout"])
def test_forecasts_and_choices_are_those_of_plain_steps(net: str) -> None:
    """The slow obvious reference: each trial by copies of the state, over training losses, then over validation
    losses."""
    records, end = trained(net)
    plain = make_trainer(net, **{**SHORT, "epochs": EPOCHS})
    world, state = plain.workers.world, plain.state
    untrained = None
    for first, length, by_validation in ((1, 1, False), (2, 2, False), (4, 2, True), (6, 1, True)):
        tried: list[Tried] = []
        start = state.save(state.empty())
        for number in range(3):
            seed = derived_seed(0, first, number)
            rate = propose(tried, (INTERVAL[0], INTERVAL[1]), kappa=1e6, seed=seed)
            losses, judged = [], []
            for iteration in range(4):
                losses.append(plain.train(first, range(iteration, iteration + 1), [rate], world, 1).loss)
                judged.append(plain.evaluate(plain.data.validation, world).loss)
            untrained = losses[0] if untrained is None else untrained
            series = Series([1, 2, 3, 4], judged, by_validation=True) if by_validation else Series(range(4), losses)
            tried.append(Tried(rate, forecast_loss(series, length * 6, untrained=untrained)))
            state.load(start)
        branches = records[first - 1].branches
        assert [Tried(branch.learning_rate, branch.metric or math.nan) for branch in branches] == tried
        best = min(tried, key=lambda one: one.loss).learning_rate
        for epoch in range(first, first + length):
            assert records[epoch - 1].learning_rate == best
            plain.train(epoch, range(6), [best] * 6, world, 1)
    assert state.digest() == end


def test_trials_longer_than_an_epoch_go_on_with_the_next_ones_batches() -> None:
    """A tenth of 80 epochs of six iterations is 48 iterations, eight epochs."""
    records, _ = trained("plain", {"name": "autolrs", "trials": 1, "stage_iterations": 480}, epochs=80)
    plain = make_trainer("plain", **SHORT)
    [branch] = records[0].branches
    losses = [
        plain.train(epoch, range(i, i + 1), [branch.learning_rate], plain.workers.world, 1).loss
        for epoch in range(1, 9)
        for i in range(6)
    ]
    assert branch.metric == forecast_loss(Series(range(48), losses), 480, untrained=losses[0])
    assert [len(record.branches) for record in records] == [1] + [0] * 79


def test_telemetry_is_that_of_the_training_alone() -> None:
    method = METHOD | {"trials": 1}
    records, _ = trained("plain", method, telemetry={"every": 2})
    rate = records[0].learning_rate
    plain = make_trainer("plain", **SHORT, telemetry={"every": 2})
    plain.train(1, range(6), [rate] * 6, plain.workers.world, 1)
    assert plain.telemetry is not None
    assert records[0].layers == plain.telemetry.record(1)


def test_a_trial_that_diverges_is_never_chosen() -> None:
    records, _ = trained("lenet5", METHOD | {"search_interval": [1e-4, 1e6], "trials": 5}, epochs=1)
    [record] = records
    states = {branch.state for branch in record.branches}
    assert {"chosen", "diverged"} <= states
    assert all((branch.metric is None) == (branch.state == "diverged") for branch in record.branches)
    assert record.samples == 48 * (6 + 5 * 4)  # they are trained to their end, as was foreseen


def test_where_every_trial_diverges_the_training_ends() -> None:
    training = made("lenet5", METHOD | {"search_interval": [1e5, 1e6]})
    start = training.trainer.state.digest()
    with pytest.raises(Diverged) as caught:
        next(training.epochs())
    assert re.fullmatch(
        r"epoch 1: every learning rate that autolrs, trial 1, has tried diverged, down to 1\d{5}; lower "
        "search_interval",
        caught.value.detail,
    )
    assert training.trainer.state.digest() == start


# --- in a job ------------------------------------------------------------------------------------------


def test_the_same_seed_has_the_same_history_and_another_another() -> None:
    (one, end), (same, same_end), (other, _) = (trained("plain", seed=seed) for seed in (3, 3, 4))
    histories = [
        [record.model_dump(exclude={*TIMES, "branches"}) for record in records] for records in (one, same, other)
    ]
    tried = [
        [(branch.learning_rate, branch.metric) for record in records for branch in record.branches]
        for records in (one, same, other)
    ]
    assert (histories[0], tried[0], end) == (histories[1], tried[1], same_end)
    assert tried[0] != tried[2]


@pytest.mark.parametrize("dies_behind", [1, 2, 3, 5])
def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path: Path, dies_behind: int) -> None:
    """Behind a stage and within one; what is known of the untrained net's loss is not lost."""
    whole, broken = Told(), Mortal(dies_behind)
    job(METHOD, whole, tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        job(METHOD, broken, tmp_path / "broken")
    broken.dies_behind = None
    job(METHOD, broken, tmp_path / "broken", points=broken.points(), trials=broken.progress())
    assert [record.epoch for record in whole.epochs.values() if record.branches] == list(SEARCHES)
    assert _timeless(broken) == _timeless(whole)


def job(method: dict[str, Any], told: Told, folder: Path, **known: Any) -> None:
    """Train the only method of a job with a budget of 14 epochs."""
    with patch.dict(models.BUILDERS, {"lenet5": NETS["batch-norm"]}):
        spec = JobSpec.model_validate(spec_document(**SHORT, budget={"epochs": 14}, methods=[method]))
        known = {"points": (), "trials": (), "attempt": 1, "folder": folder, "recorder": told} | known
        for _ in train_job(spec, digits(TRAIN_SAMPLES), Workers(CPU), **known):
            pass


class Mortal(Told):
    """A recorder that dies behind an epoch."""

    def __init__(self, dies_behind: int) -> None:
        super().__init__()
        self.dies_behind: int | None = dies_behind

    def epoch(self, record: EpochRecord) -> None:
        super().epoch(record)
        if record.epoch == self.dies_behind:
            raise ConnectionAbortedError("the attempt dies here")


def _timeless(told: Told) -> list[dict[str, Any]]:
    records = timeless(told.epochs)
    for record in records:
        for branch in record["branches"]:
            del branch["seconds"]
    return records


def test_the_budget_holds(tmp_path: Path) -> None:
    """Of 14 epochs of six iterations, 84: six take 36, and the trials of their four stages 48."""
    told = Told()
    job(METHOD, told, tmp_path)
    assert told.trials[0].epochs == len(told.epochs) == EPOCHS
    assert sum(record.samples for record in told.epochs.values()) == 84 * 48


# --- with other workers --------------------------------------------------------------------------------


def told_of(net: str) -> tuple[str, list[list[tuple[float, float | None]]], list[int], list[float]]:
    """The digest of the end, what was tried and forecast, the samples of each epoch, and the weights."""
    trainer = make_trainer(net, **SHORT, methods=[METHOD])
    training = AutoLrs(trainer.spec.methods[0], trainer, 1)  # type: ignore[arg-type]
    records = list(training.epochs())
    tried = [[(branch.learning_rate, branch.metric) for branch in record.branches] for record in records]
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in trainer.model.parameters()])
    return trainer.state.digest(), tried, [record.samples for record in records], weights.tolist()


def test_workers_decide_alike_and_as_one(ranks: Ranks) -> None:
    """Up to sums in another order, which the search may follow."""
    one, other = ranks(2, told_of, "plain")
    assert one == other
    [alone] = ranks(1, told_of, "plain")
    assert one[2] == alone[2]
    assert [rate for rate, _ in one[1][0]] == pytest.approx([rate for rate, _ in alone[1][0]], rel=1e-3)
    assert [loss for _, loss in one[1][0]] == pytest.approx([loss for _, loss in alone[1][0]], rel=1e-2, abs=1e-2)


# --- worth it ------------------------------------------------------------------------------------------


def test_it_learns_digits() -> None:
    """LeNet-5 and all digits: a real training, whose learning rate falls from the first stage to the second."""
    document = spec_document(methods=["autolrs"], epochs=8, global_batch_size=32)
    spec = JobSpec.model_validate(document | {"lr_set": {"learning_rates": [0.001, 0.03]}})
    training = make_training(spec.methods[0], 1, spec, digits(), Workers(CPU))
    records = list(training.epochs())
    assert [record.epoch for record in records if record.branches] == [1, 5]
    assert [len(record.branches) for record in records if record.branches] == [10, 10]
    assert records[4].learning_rate < records[0].learning_rate
    assert records[-1].test_accuracy > 0.95
    assert sum(record.samples for record in records) == 2 * 8 * 40 * 32
