"""Trainings that race before their first epoch: their looks, their cost, and that they are the same everywhere."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from service.algorithms.cost import forecast
from service.algorithms.epoch_plan import samples_per_epoch
from service.errors import Diverged
from service.spec.job import JobSpec
from service.spec.methods.stpt import StptMethod
from service.wire.worker import EpochRecord
from tests.builders import spec_document
from tests.unit.workers.methods.test_stpt import TOLERANCE, resumed, train
from tests.unit.workers.ranks import CPU, NETS, Ranks, digits, make_stpt, make_trainer, stpt_of, trainer_of
from workers.engine.groups import Workers
from workers.engine.trainer import Trainer
from workers.methods.scheduled import Scheduled, follow
from workers.methods.stpt import Stpt, build
from workers.models import build as models_build
from workers.trainings import spec_of_training

pytest_plugins = ["tests.unit.workers.ranks"]

RACE: dict[str, Any] = {
    "lr_set": {"kind": "race", "search_share": 0.5},
    "global_batch_size": 48,  # 26 iterations an epoch
    "epochs": 3,
    "lr_schedule": "linear",
    "metric": "val_loss",
    "selector": "greedy",
    "pretrain": {"weights": "averaged"},
    "guards": {},
}


def raced(net: str = "plain", **changes: Any) -> list[EpochRecord]:
    return list(make_stpt(net, **RACE | changes).epochs())


def test_the_looks_of_a_race() -> None:
    first, second, _ = raced()
    # 39 iterations: 7 of one, 4 of three, and 10 more for each of the finalists
    assert [branch.iterations for branch in first.branches] == [1] * 7 + [3] * 4 + [10] * 2
    states = [branch.state for branch in first.branches]
    assert set(states[:11]) <= {"eliminated", "diverged"}
    assert sorted(states[11:]) == ["chosen", "lost"]
    assert first.learning_rate == second.learning_rate
    assert first.iterations == 39 + 26
    assert [branch.learning_rate for branch in first.branches][:5] == pytest.approx([1.0, 0.3, 0.1, 0.03, 0.01])
    assert [branch.state for branch in second.branches] == ["chosen"]


def test_the_training_behind_a_race_is_a_replay_of_its_schedule() -> None:
    stpt = make_stpt("batch-norm", **RACE)
    records = list(stpt.epochs())
    schedule = stpt.settings.schedule_of([record.learning_rate for record in records], stpt.spec, {})
    trainer = make_trainer("batch-norm", **RACE)
    alone = Scheduled(trainer, "replay", 1, follow(schedule, trainer), rescales_momentum=schedule.rescale_momentum)
    replayed = list(alone.epochs())
    assert trainer.state.digest() == stpt.trainer.state.digest()
    assert [r.last_learning_rate for r in replayed] == [r.last_learning_rate for r in records]
    # 78 iterations, of which 16 are the warm-up
    assert records[0].first_learning_rate == pytest.approx(records[0].learning_rate / 17)


def test_a_race_in_both_placements_is_the_same(ranks: Ranks) -> None:
    for workers, net in ((2, "batch-norm"), (3, "plain")):
        split = train(ranks, workers, net, **RACE)
        placed = RACE | {"pretrain": {"weights": "averaged", "placement": "sequential"}}
        sequential = train(ranks, workers, net, **placed)
        assert split.learning_rates == sequential.learning_rates
        np.testing.assert_allclose(split.weights, sequential.weights, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_raced_training_that_goes_on_ends_with_the_same_bits(ranks: Ranks, workers: int) -> None:
    [digests, *others] = ranks(workers, resumed, "batch-norm", RACE, 1)
    assert others == [digests] * (workers - 1)
    assert len(set(digests)) == 1


@pytest.mark.parametrize("budget", [None, {"epochs": 5}, {"epochs": 2.5}, {"samples": 3000}])
@pytest.mark.parametrize("share", [None, 0.4])
def test_what_is_spent_is_what_was_forecast(budget: dict[str, Any] | None, share: float | None) -> None:
    lr_set = {"kind": "race", "search_share": share}
    spec = JobSpec.model_validate(spec_document(**RACE | {"lr_set": lr_set, "budget": budget}))
    data = digits()
    [cost] = forecast(spec, len(data.train))
    own = spec_of_training(spec, spec.methods[0], spec.seed, samples_per_epoch(spec, len(data.train)), None)
    with patch.dict(models_build.BUILDERS, {spec.model: NETS["plain"]}):
        stpt = stpt_of(trainer_of(own, data, Workers(CPU)))
    records = list(stpt.epochs())
    assert sum(record.samples for record in records) == cost.samples
    if budget is not None:
        most = budget.get("samples") or budget["epochs"] * 26 * 48
        looked = sum(branch.samples for branch in records[0].branches)
        assert cost.samples <= most
        assert looked <= (0.15 if share is None else share) * most or len(records[0].branches) == 1


def test_a_race_that_is_scaled_and_capped_takes_what_was_forecast() -> None:
    """0.1 at a batch of 12 is 0.4 at 48: 10, 3 and 1 times that are 0.4 after the cap, and three looks are left."""
    lr_set = {"kind": "race", "search_share": 0.5, "max_learning_rate": 0.4}
    method = {"name": "stpt", "scaling": {"rule": "linear", "base_batch_size": 12}}
    spec = JobSpec.model_validate(spec_document(**RACE | {"lr_set": lr_set, "methods": [method], "epochs": 2}))
    data = digits()
    [cost] = forecast(spec, len(data.train))
    with patch.dict(models_build.BUILDERS, {spec.model: NETS["plain"]}):
        stpt = build(spec.methods_of(StptMethod)[0], 1, spec, data, Workers(CPU))
    records = list(stpt.epochs())
    assert [branch.learning_rate for branch in records[0].branches[:3]] == pytest.approx([0.4, 0.12, 0.04])
    assert sum(record.samples for record in records) == cost.samples


def test_without_room_for_a_race_the_initial_learning_rate_is_taken() -> None:
    first, *_ = raced(lr_set={"kind": "race", "search_share": 0.1})  # 7 iterations
    assert [branch.learning_rate for branch in first.branches] == [0.1]
    assert first.learning_rate == 0.1


@pytest.mark.parametrize("wrong", [1e-4, 100.0])
def test_an_initial_learning_rate_wrong_by_a_thousand_costs_two_more_looks(wrong: float) -> None:
    right, other = raced(epochs=4), raced(epochs=4, initial_learning_rate=wrong)
    assert len(other[0].branches) == len(right[0].branches) == 13
    assert 0.1 <= other[0].learning_rate / right[0].learning_rate <= 10
    assert other[-1].val_accuracy > right[-1].val_accuracy - 0.05


def test_where_no_finalist_can_be_trained_by_the_training_has_diverged() -> None:
    stpt = make_stpt("plain", **RACE)
    with patch.object(Stpt, "_failed", return_value=True), pytest.raises(Diverged, match="initial_learning_rate"):
        next(stpt.epochs())


# digits: 144 samples for validation, 360 for testing. The start is evaluated once, each of 13 looks twice: by its last
# weights and by their mean; each time statistics are those of 26 batches of one worker, the whole epoch.
@pytest.mark.parametrize(("net", "workers", "batch"), [("plain", 1, 0), ("batch-norm", 1, 48), ("batch-norm", 2, 24)])
def test_estimates_of_running_statistics_count_as_evaluation(ranks: Ranks, net: str, workers: int, batch: int) -> None:
    for placement in ("split", "sequential"):
        changes = RACE | {"pretrain": {"weights": "averaged", "placement": placement}, "epochs": 2}
        raced, settled = train(ranks, workers, net, **changes).records
        assert raced.evaluation_samples == 27 * (144 + 26 * batch) + 144 + 360
        assert settled.evaluation_samples == 144 + 144 + 360  # its one branch, and the end of the epoch


def test_running_statistics_are_those_of_the_weights_at_hand() -> None:
    """The mean over batches of the statistics that each batch has, as torch's update_bn takes it."""
    trainer: Trainer = make_stpt("batch-norm", **RACE).trainer
    layer = trainer.model[1]
    trainer.train(1, range(3), [0.1] * 3, trainer.workers.world, 1)
    momentum = layer.momentum
    trainer.estimate_statistics(1, trainer.workers.world)
    assert layer.momentum == momentum
    order, means = trainer._order(1), []
    with torch.no_grad():
        for iteration in range(26):
            images, _ = trainer._inputs(1, iteration, [0], range(48), order)
            means.append(trainer.model[0](images).mean(dim=(0, 2, 3)))
    torch.testing.assert_close(layer.running_mean, torch.stack(means).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_race_that_saw_nothing_too_large_trains_by_a_finalist_as_it_is() -> None:
    # from 1e-4 two steps of ten reach 0.1, which is best: with nothing too large beyond it no look has a bias
    first, *_ = raced(initial_learning_rate=1e-4)
    wide, finalists = first.branches[:7], first.branches[11:]
    assert max(branch.learning_rate for branch in wide) == pytest.approx(0.1)
    [chosen] = [branch for branch in finalists if branch.state == "chosen"]
    assert first.learning_rate == chosen.learning_rate == max(branch.learning_rate for branch in finalists)


def test_between_finalists_both_of_which_have_learned() -> None:
    first, *_ = raced("batch-norm", epochs=6)
    finalists = [branch for branch in first.branches if branch.state != "eliminated"]
    lower, upper = sorted(branch.learning_rate for branch in finalists)
    assert len(finalists) == 2
    assert lower < first.learning_rate < upper
    assert first.learning_rate == float(f"{first.learning_rate:.2g}")
