"""STPT epochs: the same choice in every placement, from one start, as a slow obvious reference makes it.

Choices are compared exactly, and weights after a few epochs at tame learning rates within 1e-3: sums in another order
differ by 1e-7, which LeNet's max-pooling can turn into 1e-4 where two pixels are all but equal.
"""

import math
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from service.errors import Diverged
from service.wire.worker import EpochRecord
from tests.builders import spec_document
from tests.unit.workers import reference
from tests.unit.workers.ranks import NETS, digits, make_stpt
from workers.datasets.load import Split
from workers.engine.trainer import Trainer
from workers.methods.stpt import Stpt

pytest_plugins = ["tests.unit.workers.ranks"]

TOLERANCE = 1e-3
FACTORS = [2.0, 1.0, 0.5, 0.25, 0.7]
SHORT = {
    "global_batch_size": 48,
    "initial_learning_rate": 0.05,
    "pretrain": {"iterations": 2},
    "main_train": {"iterations": 4},
}


def relative(m):
    return {"factors": FACTORS[:m]}


@dataclass(frozen=True)
class Told:
    """What one rank knows of a training."""

    records: list[EpochRecord]
    starts: list[set[str]]  # for each epoch, the digests of the state that its branches on this rank began with
    ends: list[str]  # the digest after each epoch
    weights: np.ndarray  # of the last epoch

    @property
    def learning_rates(self):
        return [record.learning_rate for record in self.records]

    @property
    def results(self):
        """The records without the seconds they took."""
        timeless = {"seconds": 0.0, "pretrain_seconds": 0.0, "main_train_seconds": 0.0}
        return [
            record.model_copy(
                update={**timeless, "branches": [b.model_copy(update={"seconds": 0.0}) for b in record.branches]}
            )
            for record in self.records
        ]


def told(net, changes):
    stpt = make_stpt(net, **changes)
    starts, train_branch = [set() for _ in range(stpt.spec.epochs)], Stpt.train_branch

    def recorded(self, epoch, *arguments):
        starts[epoch.number - 1].add(self.trainer.state.digest())
        return train_branch(self, epoch, *arguments)

    records, ends = [], []
    with patch.object(Stpt, "train_branch", recorded):
        for record in stpt.epochs():
            records.append(record)
            ends.append(stpt.trainer.state.digest())
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in stpt.trainer.model.parameters()])
    return Told(records, starts, ends, weights.numpy())


def train(ranks, workers, net="plain", **changes):
    """One training, as rank 0 tells of it; the other ranks must tell the same."""
    all_told = ranks(workers, told, net, changes)
    first = all_told[0]
    for other in all_told[1:]:
        assert other.results == first.results
        assert other.starts == first.starts
        assert other.ends == first.ends
    return first


# --- the same start, the same choice ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "net"),
    [(2, "lenet5"), (2, "batch-norm"), (3, "plain"), (3, "batch-norm"), (4, "plain"), (4, "batch-norm")],
)
def test_split_and_sequential_choose_the_same_learning_rates(ranks, workers, net):
    for m in (workers - 1, workers, workers + 1):
        changes = {**SHORT, "lr_set": relative(m)}
        split = train(ranks, workers, net, **changes)
        sequential = train(ranks, workers, net, **changes | {"pretrain": {"iterations": 2, "placement": "sequential"}})
        assert split.learning_rates == sequential.learning_rates
        np.testing.assert_allclose(split.weights, sequential.weights, rtol=0, atol=TOLERANCE)
        for run in (split, sequential):
            starts = [start for (start,) in run.starts]  # one digest for all branches of an epoch
            assert len({*starts, *run.ends}) == 4  # an epoch begins where the last one ended, and goes somewhere
            assert starts[1:] == run.ends[:-1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_seed_decides_everything(ranks, workers):
    """Through the service: tests/e2e/test_service.py, whose job of three attempts equals one that nobody disturbed."""
    changes = {**SHORT, "lr_set": relative(3), "epochs": 2}
    one, same = train(ranks, workers, **changes), train(ranks, workers, **changes)
    assert one.results == same.results
    assert (one.starts, one.ends) == (same.starts, same.ends)
    assert np.array_equal(one.weights, same.weights)
    other = train(ranks, workers, **changes, seed=1)
    assert other.results != one.results
    assert not {*other.ends, *other.starts[0]} & {*one.ends, *one.starts[0]}


def test_any_number_of_workers_trains_the_same(ranks):
    """Without batch normalisation, which sees b = B / n samples."""
    changes = {**SHORT, "lr_set": relative(3), "warmup": {"epochs": 1}}
    alone, *others = (train(ranks, workers, **changes) for workers in (1, 2, 4))
    assert len(set(alone.learning_rates)) > 1
    for other in others:
        assert other.learning_rates == alone.learning_rates
        np.testing.assert_allclose(other.weights, alone.weights, rtol=0, atol=TOLERANCE)


def resumed(net, changes, epochs):
    """The digest at the end of a training, and of one that went on from a copy of its state after so many epochs."""
    whole, rest = make_stpt(net, **changes), make_stpt(net, **changes)
    for record in whole.epochs():
        if record.epoch == epochs:
            state, position = whole.trainer.state.save(whole.trainer.state.empty()), whole.position
    rest.trainer.state.load(state)
    rest.position = position
    numbers = [record.epoch for record in rest.epochs()]
    assert numbers == list(range(epochs + 1, whole.spec.epochs + 1))
    return whole.trainer.state.digest(), rest.trainer.state.digest()


@pytest.mark.parametrize("net", ["plain", "batch-norm"])
@pytest.mark.parametrize(("workers", "epochs"), [(1, 1), (2, 1), (3, 2), (4, 1)])
def test_a_training_that_goes_on_from_its_state_and_position_ends_with_the_same_bits(ranks, net, workers, epochs):
    [digests, *others] = ranks(workers, resumed, net, {**SHORT, "lr_set": relative(2)}, epochs)
    assert others == [digests] * (workers - 1)
    assert len(set(digests)) == 1


LAYERWISE = [
    ("lars", 10.0),
    ("lamb", 0.02),
    ({"name": "tvlars", "decay": 0.02, "delay_epochs": 1}, 10.0),
]


@pytest.mark.parametrize(("optimizer", "learning_rate"), LAYERWISE, ids=["lars", "lamb", "tvlars"])
def test_layerwise_optimizers_under_search_are_placed_and_go_on_like_any(ranks, optimizer, learning_rate):
    """Two workers: placements and a resumed training agree to the last bit."""
    changes = {**SHORT, "optimizer": optimizer, "initial_learning_rate": learning_rate}
    changes["lr_set"] = {"factors": FACTORS[:3], "max_learning_rate": 100.0}
    split = train(ranks, 2, "batch-norm", **changes)
    pretrain = {"iterations": 2, "placement": "sequential"}
    sequential = train(ranks, 2, "batch-norm", **changes | {"pretrain": pretrain})
    assert split.learning_rates == sequential.learning_rates
    assert split.ends == sequential.ends
    assert split.records[-1].val_accuracy > 0.2  # it learns
    digests, others = ranks(2, resumed, "batch-norm", changes, 1)
    assert digests == others
    assert set(digests) == {split.ends[-1]}


def test_telemetry_has_the_trust_ratios_of_lars():
    lars = {"name": "lars", "trust_coefficient": 0.01}
    changes = {"optimizer": lars, "initial_learning_rate": 1.0, "lr_set": relative(2), "telemetry": {"every": 2}}
    *_, record = make_stpt("batch-norm", **SHORT | changes).epochs()
    ratios, lwn, lgn = map(np.array, (record.layers.trust_ratio, record.layers.lwn, record.layers.lgn))
    assert ratios.shape == (3, 3)  # layers, samples
    np.testing.assert_allclose(ratios, 0.01 * lwn / lgn, rtol=1e-3)


# --- the slow obvious reference ----------------------------------------------------------------------


@pytest.mark.parametrize("net", ["plain", "batch-norm"])
@pytest.mark.parametrize(("optimizer", "learning_rate"), [("sgd", 0.1), ("adam", 0.004)])
def test_the_reference_is_reproduced(ranks, net, optimizer, learning_rate):
    """1, 2 and 4 workers with fewer, as many and more candidates: the same choices, and all but the same weights.

    Up to two workers add in the reference's order. Four do not: what differs by 1e-7 at first, batch normalisation of
    16 samples makes 6e-3 of in three epochs.
    """
    whole = spec_document(
        epochs=3,
        global_batch_size=64,
        seed=5,
        optimizer=optimizer,
        initial_learning_rate=learning_rate,
        warmup={"epochs": 1, "learning_rate": learning_rate / 10},
        pretrain={"iterations": 3},
        main_train={"iterations": 5},
    )
    for workers, m in ((1, 2), (2, 1), (2, 2), (2, 3), (4, 3), (4, 4), (4, 5)):
        document = whole | {"lr_set": relative(m)}
        chosen, weights = reference.train(digits(), lambda: NETS[net](10, 1, 28), document, workers)
        run = train(ranks, workers, net, **document)
        assert run.learning_rates == chosen
        np.testing.assert_allclose(run.weights, weights, rtol=0, atol=1e-5 if workers <= 2 else 2e-2)


# --- the record --------------------------------------------------------------------------------------

# digits: 1293 training samples, 144 for validation, 360 for testing; 20 batches of 64, of which alpha is 8 %: 2


@dataclass(frozen=True)
class Counts:
    branches: int
    branch_samples: int  # each with 2 iterations
    iterations: int
    samples: int
    evaluation_samples: int


@pytest.mark.parametrize(
    ("workers", "changes", "expected"),
    [
        (1, {"lr_set": "middle"}, Counts(8, 128, 34, 2176, 1656)),
        (2, {"lr_set": "middle"}, Counts(8, 128, 34, 2176, 1656)),
        (2, {"lr_set": "middle", "pretrain": {"batch": "per_worker"}}, Counts(8, 64, 34, 1664, 1656)),
        (4, {"lr_set": relative(2), "pretrain": {"batch": "per_worker"}}, Counts(2, 64, 22, 1280, 792)),
        (4, {"lr_set": relative(3), "pretrain": {"batch": "per_worker"}}, Counts(3, 32, 24, 1248, 936)),
        (2, {"lr_set": relative(3), "pretrain": {"placement": "sequential"}}, Counts(3, 128, 24, 1536, 936)),
        (2, {"lr_set": relative(3), "metric": "train_accuracy"}, Counts(3, 128, 24, 1536, 504)),
        (1, {"lr_set": relative(3), "metric": "val_loss"}, Counts(3, 128, 24, 1536, 936)),
        (2, {"lr_set": relative(3), "main_train": {"iterations": 0}}, Counts(3, 128, 6, 384, 936)),
        (2, {"lr_set": relative(3), "warmup": {"epochs": 1}}, Counts(0, 0, 20, 1280, 504)),
    ],
)
def test_the_epoch_record(ranks, workers, changes, expected):
    [record] = train(ranks, workers, epochs=1, **changes).records
    assert (record.epoch, record.label, record.trial, record.retries) == (1, "stpt", 1, 0)
    assert (record.iterations, record.samples) == (expected.iterations, expected.samples)
    assert record.evaluation_samples == expected.evaluation_samples
    branches = record.branches
    assert [branch.number for branch in branches] == list(range(1, expected.branches + 1))
    assert {(branch.iterations, branch.samples, branch.retry) for branch in branches} <= {
        (2, expected.branch_samples, 0)
    }
    assert all(branch.seconds > 0 for branch in branches)
    assert 0 <= record.pretrain_seconds <= record.seconds
    assert 0 < record.main_train_seconds <= record.seconds
    if not branches:
        assert (record.phase, record.learning_rate, record.pretrain_seconds) == ("warmup", 0.005, 0)
        return
    assert record.phase == "stpt"
    [chosen] = [branch for branch in branches if branch.state == "chosen"]
    assert record.learning_rate == chosen.learning_rate
    assert {branch.state for branch in branches} == {"chosen", "lost"}
    best = min if changes.get("metric") == "val_loss" else max
    assert chosen.metric == best(branch.metric for branch in branches)


def test_a_record_tells_what_was_measured():
    """Its losses and accuracies belong to the weights and forward passes that the epoch ended with."""
    stpt = make_stpt("plain", epochs=1, lr_set=relative(3))
    seen, original = [], Trainer.train

    def recorded(self, epoch, iterations, learning_rates, *arguments):
        [learning_rate] = set(learning_rates)
        seen.append((epoch, iterations, learning_rate, original(self, epoch, iterations, learning_rates, *arguments)))
        return seen[-1][3]

    with patch.object(Trainer, "train", recorded):
        [record] = stpt.epochs()
    pretrain, main = seen[:3], seen[3]
    assert [call[:3] for call in pretrain] == [(1, range(2), 0.2), (1, range(2), 0.1), (1, range(2), 0.05)]
    assert main[:3] == (1, range(2, 20), record.learning_rate)
    [chosen] = [call[3] for call in pretrain if call[2] == record.learning_rate]
    assert record.train_loss == (chosen + main[3]).loss
    world, data = stpt.world, stpt.trainer.data
    validation, test = stpt.trainer.evaluate(data.validation, world), stpt.trainer.evaluate(data.test, world)
    assert (record.val_loss, record.val_accuracy) == (validation.loss, validation.accuracy)
    assert record.test_accuracy == test.accuracy


def test_the_winner_goes_on_with_its_own_state():
    """Main-train begins with the whole state after alpha iterations at the chosen learning rate."""
    stpt, alone = (
        make_stpt("batch-norm", epochs=1, lr_set=relative(3), main_train={"iterations": 0}) for _ in range(2)
    )
    [record] = stpt.epochs()
    alone.trainer.train(1, range(2), [record.learning_rate] * 2, alone.world, 1)
    assert stpt.trainer.state.digest() == alone.trainer.state.digest()


def test_relative_candidates_follow_the_chosen_learning_rate():
    stpt = make_stpt("plain", lr_set={"factors": [2.0, 0.5]}, warmup={"epochs": 1}, **SHORT)
    warmup, second, third = stpt.epochs()
    assert (warmup.learning_rate, warmup.branches) == (0.005, [])
    assert [branch.learning_rate for branch in second.branches] == [0.1, 0.025]
    assert [b.learning_rate for b in third.branches] == [2 * second.learning_rate, 0.5 * second.learning_rate]


# --- metrics -----------------------------------------------------------------------------------------


def test_branches_are_judged_by_the_metric_asked_for():
    learning_rates = [0.3, 0.1, 0.01]
    by = {}
    for metric in ("val_accuracy", "val_loss", "train_accuracy"):
        stpt = make_stpt("plain", epochs=1, lr_set={"learning_rates": learning_rates}, metric=metric, **SHORT)
        [record] = stpt.epochs()
        by[metric] = [branch.metric for branch in record.branches]
    trainer = make_stpt("plain", epochs=1, **SHORT).trainer
    start, world = trainer.state.save(trainer.state.empty()), trainer.workers.world
    for number, learning_rate in enumerate(learning_rates):
        trainer.state.load(start)
        training = trainer.train(1, range(2), [learning_rate] * 2, world, 1)
        validation = trainer.evaluate(trainer.data.validation, world)
        assert by["train_accuracy"][number] == training.accuracy
        assert by["val_accuracy"][number] == validation.accuracy
        assert by["val_loss"][number] == validation.loss


# --- divergence ----------------------------------------------------------------------------------------

ABSURD = {"learning_rates": [1e6, 0.05, 3e5, 0.02]}


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss", "train_accuracy"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_branch_that_diverges_is_never_chosen(ranks, workers, metric):
    run = train(
        ranks,
        workers,
        "lenet5",
        metric=metric,
        **{**SHORT, "lr_set": ABSURD, "pretrain": {"iterations": 3}, "epochs": 2},
    )
    for record in run.records:
        states = [(branch.state, branch.metric is None) for branch in record.branches]
        assert states[0] == states[2] == ("diverged", True)
        assert sorted([states[1], states[3]]) == [("chosen", False), ("lost", False)]
        assert record.learning_rate in (0.05, 0.02)
        assert record.retries == 0
        assert all(math.isfinite(value) for value in (record.train_loss, record.val_loss))


def explodes_above(limit):
    """Trainer.train, but at a learning rate above the limit every weight becomes NaN, and so does the loss."""
    original = Trainer.train

    def exploding(self, epoch, iterations, learning_rates, *arguments):
        measured = original(self, epoch, iterations, learning_rates, *arguments)
        if max(learning_rates) <= limit:
            return measured
        with torch.no_grad():
            for tensor in self.state.tensors:
                tensor.fill_(math.nan if tensor.is_floating_point() else 7)
        return replace(measured, loss_sum=math.nan)

    return patch.object(Trainer, "train", exploding)


def told_above(limit, net, changes):
    with explodes_above(limit):
        return told(net, changes)


@pytest.mark.parametrize("workers", [1, 2])
def test_when_every_branch_diverges_all_are_tried_again_at_a_tenth(ranks, workers):
    changes = {**SHORT, "lr_set": {"learning_rates": [4.0, 3.0, 0.5]}, "epochs": 2}
    runs = ranks(workers, told_above, 0.04, "batch-norm", changes)
    assert all(run.ends == runs[0].ends for run in runs)
    for record, starts in zip(runs[0].records, runs[0].starts, strict=True):
        assert record.retries == 2
        assert [(branch.number, branch.retry) for branch in record.branches] == [
            (1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1), (7, 2), (8, 2), (9, 2)
        ]  # fmt: skip
        rates = [branch.learning_rate for branch in record.branches]
        assert rates == pytest.approx([4.0, 3.0, 0.5, 0.4, 0.3, 0.05, 0.04, 0.03, 0.005], rel=1e-12)
        assert [branch.state for branch in record.branches[:6]] == ["diverged"] * 6
        assert sorted(branch.state for branch in record.branches[6:]) == ["chosen", "lost", "lost"]
        assert len(starts) == 1  # every retry from the same state
        assert record.iterations == 9 * 2 + 4
        assert record.samples == 48 * (9 * 2 + 4)
        assert record.evaluation_samples == 9 * 144 + 144 + 360
    # what diverged left no trace: the same training without it
    [plain, *_] = ranks(workers, told, "batch-norm", {**changes, "lr_set": {"learning_rates": rates[6:]}})
    assert plain.ends == runs[0].ends


def failure_of(limit, net, changes):
    """The sentence that ended the training, the epochs before it, and whether the state is as that epoch found it."""
    stpt = make_stpt(net, **changes)
    records, before = [], stpt.trainer.state.digest()
    try:
        with explodes_above(limit):
            for record in stpt.epochs():
                records.append(record.epoch)
                before = stpt.trainer.state.digest()
    except Diverged as error:
        return error.detail, records, stpt.trainer.state.digest() == before
    raise AssertionError("it did not diverge")


@pytest.mark.parametrize(("workers", "retries", "lowest"), [(1, 0, 2), (2, 2, 0.02), (1, 10, 2e-10)])
def test_when_every_retry_diverges_the_training_ends(ranks, workers, retries, lowest):
    changes = {**SHORT, "lr_set": {"learning_rates": [2.0, 9.0]}, "warmup": {"epochs": 1, "learning_rate": 1e-12}}
    changes["pretrain"] = {"iterations": 1, "max_retries": retries}
    sentence = (
        f"epoch 2: every branch diverged, down to learning rate {lowest:g} ({retries} retries); "
        "choose smaller learning rates"
    )
    assert ranks(workers, failure_of, 1e-11, "plain", changes) == [(sentence, [1], True)] * workers


def test_a_real_divergence_ends_the_training(ranks):
    changes = {**SHORT, "lr_set": {"learning_rates": [1e6, 5e5]}, "pretrain": {"iterations": 3}}
    sentence = "epoch 1: every branch diverged, down to learning rate 5000 (2 retries); choose smaller learning rates"
    assert ranks(2, failure_of, math.inf, "lenet5", changes) == [(sentence, [], True)] * 2


@pytest.mark.parametrize("what", ["the loss", "the last step"])
def test_a_main_train_that_diverges_ends_the_training(what):
    """The last step of an epoch shows in the validation loss alone; no next epoch may ever look at it."""
    original = Trainer.train

    def exploding(self, epoch, iterations, *arguments):
        measured = original(self, epoch, iterations, *arguments)
        if epoch < 2 or iterations.start == 0:
            return measured
        if what == "the loss":
            return replace(measured, loss_sum=math.nan)
        with torch.no_grad():
            next(self.model.parameters()).fill_(math.inf)
        return measured

    stpt = make_stpt("plain", epochs=2, lr_set={"learning_rates": [0.05]}, **SHORT)
    records = []
    with (
        patch.object(Trainer, "train", exploding),
        pytest.raises(Diverged) as caught,
    ):
        records.extend(stpt.epochs())
    assert caught.value.detail == (
        "epoch 2: the loss became non-finite at learning rate 0.05 after Pre-train; "
        "choose smaller learning rates or a longer Pre-train"
    )


def test_a_warmup_that_diverges_ends_the_training():
    stpt = make_stpt("plain", **SHORT, warmup={"epochs": 1, "learning_rate": 1e6})
    epochs = stpt.epochs()
    record = next(epochs)
    assert (record.phase, record.val_loss, record.val_accuracy) == ("warmup", None, 0.0)
    with pytest.raises(Diverged) as caught:
        next(epochs)
    assert caught.value.detail == (
        "epoch 1: the loss became non-finite at learning rate 1e+06 in the warm-up; "
        "choose a smaller warmup.learning_rate"
    )


# --- samples -----------------------------------------------------------------------------------------


def samples_of_branches(m, batch):
    """What this rank processed in each iteration of each of its branches: learning rate -> indices of samples."""
    learning_rates = [0.1 / k for k in range(1, m + 1)]
    changes = {**SHORT, "pretrain": {"iterations": 2, "batch": batch}, "lr_set": {"learning_rates": learning_rates}}
    stpt, seen = make_stpt("plain", **changes), {}
    split_read, train_branch = Split.read, Stpt.train_branch

    def recorded_branch(self, epoch, learning_rate, *arguments):
        processed = seen[learning_rate] = []

        def recorded_read(split, indices):
            if split is self.trainer.data.train:
                processed.append(indices.tolist())
            return split_read(split, indices)

        with patch.object(Split, "read", recorded_read):
            return train_branch(self, epoch, learning_rate, *arguments)

    with patch.object(Stpt, "train_branch", recorded_branch):
        next(stpt.epochs())
    return seen


@pytest.mark.parametrize(
    ("workers", "m", "batch", "samples"),
    [
        (1, 3, "global", 48),
        (3, 2, "global", 48),  # groups of two workers and of one
        (4, 3, "global", 48),
        (2, 5, "global", 48),
        (3, 2, "per_worker", 16),  # the worker that the smaller group has not got is not used in the larger one
        (4, 3, "per_worker", 12),
        (4, 2, "per_worker", 24),
        (2, 5, "per_worker", 24),
    ],
)
def test_all_branches_of_an_epoch_see_the_same_samples(ranks, workers, m, batch, samples):
    seen = ranks(workers, samples_of_branches, m, batch)
    order = make_stpt("plain", **SHORT).trainer._order(1).tolist()
    expected = order[:samples] + order[48 : 48 + samples]  # the first of each of the two global batches
    for learning_rate in (0.1 / k for k in range(1, m + 1)):
        processed = [indices for rank in seen for batch in rank.get(learning_rate, []) for indices in batch]
        assert sorted(processed) == sorted(expected)
