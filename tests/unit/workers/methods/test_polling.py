"""Polling: which learning rate each batch is trained at, and that nothing else of the polls is left."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from service.algorithms.cost import forecast
from service.wire.worker import EpochRecord
from tests.unit.workers.ranks import Ranks, make_trainer
from workers.engine.seeds import derived_seed
from workers.engine.trainer import Trainer, frozen_statistics
from workers.methods.polling import Polling

pytest_plugins = ["tests.unit.workers.ranks"]

TRAIN_SAMPLES = 6 * 48  # six iterations an epoch
RATES = [0.05, 0.2, 0.5, 2.0]
SHORT: dict[str, Any] = {
    "epochs": 2,
    "global_batch_size": 48,
    "dataset": {"name": "digits", "train_samples": TRAIN_SAMPLES},
}


def made(net: str, method: dict[str, Any], **changes: Any) -> Polling:
    trainer = make_trainer(net, **{**SHORT, **changes, "methods": [{"name": "polling", **method}]})
    return Polling(trainer.spec.methods[0], trainer, 1)  # type: ignore[arg-type]


def batch_loss(plain: Trainer, epoch: int, iteration: int) -> tuple[torch.Tensor, float]:
    """Loss and accuracy of an iteration's batch in training mode."""
    images, labels = plain._inputs(epoch, iteration, [0], range(48), plain._order(epoch))
    torch.manual_seed(derived_seed(plain.spec.seed, epoch, iteration, 0))
    answers = plain.model(images)
    return cross_entropy(answers, labels), (answers.argmax(1) == labels).double().mean().item()


def polled_by_hand(net: str, every: int, criterion: str, **changes: Any) -> tuple[list[float], str]:
    """The learning rate of each iteration, and the digest of the end, by trying out copies of the trainer's state."""
    plain = make_trainer(net, **{**SHORT, **changes})
    applied: list[float] = []
    for number in range(12):
        epoch, iteration = number // 6 + 1, number % 6
        rate = applied[-1] if applied else 0.0
        if number % every == 0:
            keys, start = [], plain.state.save(plain.state.empty())
            for candidate in RATES:
                plain.train(epoch, range(iteration, iteration + 1), [candidate], plain.workers.world, 1)
                plain.model.train()
                with torch.no_grad(), frozen_statistics(plain.model):
                    loss, accuracy = batch_loss(plain, epoch, iteration)
                keys.append(loss.item() if criterion == "loss" else 1 - accuracy)
                plain.state.load(start)
            rate = RATES[keys.index(min(keys))]
        plain.train(epoch, range(iteration, iteration + 1), [rate], plain.workers.world, 1)
        applied.append(rate)
    return applied, plain.state.digest()


@pytest.mark.parametrize("criterion", ["loss", "accuracy"])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("net", ["plain", "batch-norm", "dropout"])
def test_each_batch_is_trained_at_the_best_learning_rate(net: str, every: int, criterion: str) -> None:
    applied, end = polled_by_hand(net, every, criterion)
    polling = made(net, {"learning_rates": RATES, "every": every, "criterion": criterion})
    records = list(polling.epochs())
    assert polling.trainer.state.digest() == end
    assert [(r.first_learning_rate, r.last_learning_rate) for r in records] == [
        (applied[0], applied[5]),
        (applied[6], applied[11]),
    ]
    assert [record.learning_rate for record in records] == [applied[5], applied[11]]
    assert every > 1 or len(set(applied)) > 1


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        *({"name": name} for name in "adam adamw adagrad adadelta rmsprop lars lamb tvlars".split()),
    ],
    ids=str,
)
def test_whatever_the_optimizer(optimizer: dict[str, Any]) -> None:
    changes = {"optimizer": optimizer | {"weight_decay": 1e-2}}
    _, end = polled_by_hand("plain", 1, "loss", **changes)
    polling = made("plain", {"learning_rates": RATES}, **changes)
    list(polling.epochs())
    assert polling.trainer.state.digest() == end


def test_steps_that_write_into_the_gradient_leave_it_to_the_next_candidate() -> None:
    """torch's SGD does with Nesterov momentum where it takes all parameters at once, as it does on GPUs."""
    optimizer = {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.0}
    _, end = polled_by_hand("plain", 1, "loss", optimizer=optimizer)
    polling = made("plain", {"learning_rates": RATES}, optimizer=optimizer)
    [group] = polling.trainer.optimizer.param_groups
    group["foreach"] = True
    list(polling.epochs())
    assert polling.trainer.state.digest() == end


@pytest.mark.parametrize("every", [1, 4, 100])
def test_what_it_costs_is_what_was_foreseen(every: int) -> None:
    polling = made("plain", {"learning_rates": RATES, "every": every})
    records = list(polling.epochs())
    polls = {1: (6, 6), 4: (2, 1), 100: (1, 0)}[every]  # iterations 0, 4 and 8 of twelve
    assert [record.iterations for record in records] == [6 + 4 * count for count in polls]
    assert [record.samples for record in records] == [48 * (6 + 4 * count) for count in polls]
    assert sum(record.samples for record in records) == forecast(polling.spec, TRAIN_SAMPLES)[0].samples


def test_a_learning_rate_that_breaks_the_weights_is_not_chosen() -> None:
    polling = made("plain", {"learning_rates": [0.01, 1e6]})
    records = list(polling.epochs())
    assert [record.learning_rate for record in records] == [0.01, 0.01]
    plain = make_trainer("plain", **SHORT)
    for epoch in (1, 2):
        plain.train(epoch, range(6), [0.01] * 6, plain.workers.world, 1)
    assert polling.trainer.state.digest() == plain.state.digest()


def test_telemetry_is_that_of_the_steps_that_are_kept() -> None:
    polling = made("plain", {"learning_rates": [0.01, 1e6]}, telemetry={"every": 2})
    kept = [record.layers for record in polling.epochs()]
    alone = made("plain", {"learning_rates": [0.01, 1e5]}, telemetry={"every": 2})
    assert kept == [record.layers for record in alone.epochs()]
    assert kept[0] is not None


def told(net: str) -> tuple[str, list[EpochRecord]]:
    polling = made(net, {"learning_rates": RATES})
    return polling.trainer.state.digest(), list(polling.epochs())


def test_workers_choose_alike(ranks: Ranks) -> None:
    (_, one), (_, other) = ranks(2, told, "plain")
    [(_, alone)] = ranks(1, told, "plain")
    assert [r.learning_rate for r in one] == [r.learning_rate for r in other] == [r.learning_rate for r in alone]
    assert [r.samples for r in one] == [r.samples for r in alone]
    assert [r.val_loss for r in one] == pytest.approx([r.val_loss for r in alone], rel=1e-4)
