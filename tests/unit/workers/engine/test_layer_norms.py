"""Telemetry of layers: what it says of a training, and that the training is the same without it."""

import math
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from service.wire.worker import most_samples
from tests.unit.workers.ranks import CPU, make_stpt, make_trainer
from workers.engine.layer_norms import Collector, thinned
from workers.engine.state import Flat
from workers.engine.trainer import Trainer
from workers.methods.base import Training
from workers.methods.scheduled import Scheduled, constant
from workers.records_file import RecordsFile
from workers.trainings import run

pytest_plugins = ["tests.unit.workers.ranks"]

LAYERS = ["2.weight", "5.weight"]  # of the net with dropout; its biases are none
# 9 iterations an epoch
SMALL = {"epochs": 2, "global_batch_size": 48, "pretrain": {"iterations": 4}, "main_train": {"iterations": 5}}
SEARCH = {"lr_set": {"factors": [2.0, 1.0, 0.5]}, "initial_learning_rate": 0.02}
ROLLBACK = {"guards": {"extend": False, "skip_dead": False, "rollback": True, "rescale_momentum": False}}


@contextmanager
def spied(optimizer):
    """Norms of every layer at every step of a training, in float64, one by one: (||w||, ||g||) before the step."""
    seen, step = [], optimizer.step

    def spy():
        layers = [p for group in optimizer.param_groups for p in group["params"] if p.ndim > 1]
        seen.append([(p.detach().double().norm().item(), p.grad.double().norm().item()) for p in layers])
        step()

    optimizer.step = spy
    yield seen
    del optimizer.step


def plain(net="dropout", **changes) -> Training:
    return constant(make_trainer(net, **SMALL | changes), "cosine", 1, 0.05, "cosine")


def search(net="dropout", **changes) -> Training:
    return make_stpt(net, **SMALL | SEARCH | changes)


def model_state(training):
    """The tensors of a training that a checkpoint has."""
    return Flat(list(training.trainer.tensors.values()), CPU).digest()


def steps_of(layers):
    return range(layers.first_step, layers.first_step + layers.every * len(layers.lwn[0]), layers.every)


def samples_of(records):
    """The samples of records, as (step, layer) -> (lwn, lgn) over all epochs."""
    return {
        (step, name): (lwn[i], lgn[i])
        for layers in (record.layers for record in records)
        if layers is not None
        for name, lwn, lgn in zip(layers.names, layers.lwn, layers.lgn, strict=True)
        for i, step in enumerate(steps_of(layers))
    }


# --- what is sampled ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 4, 9, 12])
def test_samples_are_norms_before_the_step(every):
    training = plain(telemetry={"every": every})
    with spied(training.trainer.optimizer) as seen:
        records = list(training.epochs())
    assert len(seen) == 18
    samples = samples_of(records)
    assert set(samples) == {(step, name) for step in range(0, 18, every) for name in LAYERS}
    for (step, name), values in samples.items():
        assert values == pytest.approx(seen[step][LAYERS.index(name)], rel=1e-5)
    assert all(record.layers.trust_ratio is None for record in records if record.layers)


def test_an_epoch_without_a_step_to_sample_has_none():
    records = list(plain(telemetry={"every": 18}, epochs=3).epochs())
    steps = [record.layers and steps_of(record.layers) for record in records]
    assert steps == [range(0, 18, 18), None, range(18, 36, 18)]


def test_parameters_of_norms_are_no_layers():
    [record] = plain("batch-norm", telemetry={"every": 5}, epochs=1).epochs()
    assert record.layers.names == ["0.weight", "3.weight", "8.weight"]


def undone_above(limit):
    """Have every Main-train at a learning rate above the limit end in NaN."""
    original = Trainer.train

    def train(self, epoch, iterations, learning_rates, *arguments):
        measured = original(self, epoch, iterations, learning_rates, *arguments)
        undone = iterations.start and max(learning_rates, default=0) > limit
        return replace(measured, loss_sum=math.nan) if undone else measured

    return patch.object(Trainer, "train", train)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"pretrain": {"iterations": 4, "weights": "averaged"}, "audit": {"every": 1, "branches": 1}}, 1.0),
        ({"epochs": 3, "warmup": {"epochs": 1}, "pretrain": {"iterations": 9}, "main_train": {"iterations": 0}}, 1.0),
        (ROLLBACK | {"selector": {"name": "tolerance", "tolerance": 1.0}}, 0.011),  # the largest; all but the third
        (ROLLBACK, 0.009),  # all: once more at a tenth
    ],
    ids=["audit", "warm-up", "rollbacks", "retry"],
)
def test_samples_of_a_search_are_those_of_the_steps_that_made_the_model(changes, limit):
    """A replay of the chosen learning rates takes those steps and no others."""
    training = search(**changes, telemetry={"every": 2})
    with spied(training.trainer.optimizer) as tried, undone_above(limit):
        found = list(training.epochs())
    steps = 9 * training.spec.epochs
    assert len(tried) > 1.5 * steps  # branches that lost and what was undone were sampled as well
    if changes.get("guards"):
        assert found[0].rollbacks + 3 * found[0].retries == (2 if limit > 0.01 else 6)
    rates = {record.epoch: record.learning_rate for record in found}
    trainer = make_trainer("dropout", **SMALL | SEARCH | changes, telemetry={"every": 2})
    replay = Scheduled(trainer, "replay", 1, lambda epoch, _: (rates[epoch], [rates[epoch]] * 9))
    assert samples_of(found) == samples_of(replay.epochs())
    assert model_state(replay) == model_state(training)
    assert sorted({step for step, _ in samples_of(found)}) == list(range(0, steps, 2))


def gather(placement):
    pretrain = {"iterations": 4, "placement": placement}
    return [record.layers for record in search("batch-norm", pretrain=pretrain, telemetry={"every": 3}).epochs()]


def test_every_worker_has_the_samples_in_either_placement(ranks):
    split, sequential = ranks(2, gather, "split"), ranks(2, gather, "sequential")
    assert split[0] == split[1] == sequential[0] == sequential[1]
    assert [steps_of(layers) for layers in split[0]] == [range(0, 9, 3), range(9, 18, 3)]


def test_a_training_that_goes_on_from_a_checkpoint_has_the_same_samples(tmp_path):
    whole = list(search(telemetry={"every": 4}).epochs())
    recorder, folder = RecordsFile(tmp_path), tmp_path / "stpt-1"
    begun = run(search(telemetry={"every": 4}), [], 1, folder, recorder)
    assert next(begun).layers == whole[0].layers
    begun.close()
    assert recorder.records()[0].layers == whole[0].layers
    [resumed] = run(search(telemetry={"every": 4}), recorder.points(), 2, folder, recorder)
    assert (resumed.epoch, resumed.layers) == (2, whole[1].layers)


# --- the trust ratio ---------------------------------------------------------------------------------------


class Layerwise(torch.optim.SGD):
    """Tells a ratio for each parameter, of the step that it took last."""

    def step(self, closure=None):
        [group] = self.param_groups
        self.ratios = [p.norm() / p.grad.norm() for p in group["params"]]
        super().step(closure)

    def trust_ratios(self):
        return self.ratios


def test_the_trust_ratio_is_that_of_the_step():
    trainer = make_trainer("dropout", **SMALL | {"epochs": 1})
    trainer.optimizer = Layerwise(trainer.model.parameters(), lr=0.05)
    trainer.telemetry = Collector(trainer.model, trainer.optimizer, iterations=9, every=3, device=CPU)
    [record] = constant(trainer, "cosine", 1, 0.05, "constant").epochs()
    layers = record.layers
    assert [len(ratios) for ratios in layers.trust_ratio] == [3, 3]
    for ratios, lwn, lgn in zip(layers.trust_ratio, layers.lwn, layers.lgn, strict=True):
        assert ratios == pytest.approx([w / g for w, g in zip(lwn, lgn, strict=True)], rel=1e-5)


# --- what it costs the training: nothing -------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("make", [plain, search])
def test_the_training_is_the_same_without_it(make, optimizer):
    with_it, without = make(optimizer=optimizer, telemetry={"every": 1}), make(optimizer=optimizer)
    assert without.trainer.telemetry is None
    assert [facts(record) for record in with_it.epochs()] == [facts(record) for record in without.epochs()]
    assert model_state(with_it) == model_state(without)


def facts(record):
    """The fields of a record that do not depend on the clock, and are no telemetry."""
    values = record.model_dump(exclude={"seconds", "pretrain_seconds", "main_train_seconds", "layers", "branches"})
    return values, [branch.model_dump(exclude={"seconds"}) for branch in record.branches]


def test_numbers_come_to_the_host_once_an_epoch(monkeypatch):
    trainer = make_trainer("dropout", **SMALL, telemetry={"every": 1})
    sample, calls = trainer.telemetry.sample, []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, f=original, n=name, **k: (calls.append(n), f(*a, **k))[1])
    for iteration in range(9):
        with sample(1, iteration):
            pass
    assert calls == []
    trainer.telemetry.record(1)
    assert calls == ["tolist"]


# --- numbers -----------------------------------------------------------------------------------------------


def collector(net, **options):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return Collector(net, optimizer, **{"iterations": 1, "every": 1, "device": CPU, **options})


def test_norms_have_six_digits_and_are_null_when_not_finite():
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1.0]]))
        net[1].weight.fill_(math.inf)
    net[0].weight.grad = torch.tensor([[math.nan, 0.0]])
    one = collector(net)
    with one.sample(1, 0):
        pass
    record = one.record(1)
    assert record.lwn == [[1.41421], [None]]
    assert record.lgn == [[None], [0.0]]  # the loss does not depend on the second


@given(every=st.integers(1, 10**5), iterations=st.integers(1, 10**6), layers=st.integers(1, 1000))
def test_an_epoch_is_thinned_to_what_a_record_holds(every, iterations, layers):
    taken = thinned(every, iterations, layers)
    assert taken % every == 0
    assert math.ceil(iterations / taken) <= most_samples(layers)
    if taken > every:  # one multiple less would be too many
        assert math.ceil(iterations / (taken - every)) > most_samples(layers)


@given(every=st.integers(1, 50), iterations=st.integers(1, 60))
def test_epochs_share_out_the_steps(every, iterations):
    one = collector(nn.Linear(2, 1), iterations=iterations, every=every)
    steps = [step for epoch in range(1, 6) for step in one._steps(epoch)]
    assert steps == list(range(0, 5 * iterations, every))
    assert max(len(one._steps(epoch)) for epoch in range(1, 6)) <= one.values.shape[2]


def test_resnet50_and_ten_thousand_iterations():
    assert most_samples(54) == 200  # its convolutions and its fc
    assert most_samples(161) == 124  # all its tensors
    assert thinned(10, 5000, 54) == 30  # 500 samples would be too many, 167 are not
