"""Barlow Twins in the loop that every method shares: the same on however many workers, and resumable anywhere."""

import math

import pytest
import torch

from service.spec.catalog import BACKBONES
from tests.unit.workers.ranks import CPU, digits, make_stpt, make_trainer
from workers.datasets.load import Split
from workers.models.build import BUILDERS, cut_head
from workers.tasks import build as tasks
from workers.tasks.barlow_twins import two_views
from workers.tasks.build import BarlowTwins

pytest_plugins = ["tests.unit.workers.ranks"]

PROBE = {"train_samples": 200, "epochs": 100}
TASK = {"name": "barlow-twins", "projector": [16, 12], "probe": PROBE}


def twins(net, **changes):
    return make_trainer(net, task=TASK, global_batch_size=48, **changes)


def weights(trainer):
    return torch.cat([parameter.detach().reshape(-1) for parameter in trainer.model.parameters()]).tolist()


def trained(net, groups):
    """Train three iterations in this rank's group of the split, each on the whole global batch, and return what they
    came to."""
    trainer = twins(net)
    group = trainer.workers.split(groups)
    measured = trainer.train(1, range(3), [0.02] * 3, group, trainer.workers.size)
    statistics = [buffer.tolist() for buffer in trainer.model.buffers()]
    validation = trainer.evaluate(trainer.data.validation, group)
    assert (measured.samples, validation.samples) == (3 * 48, 144)
    return (
        measured.loss,
        validation.loss,
        weights(trainer),
        statistics,
        validation.accuracy,
        trainer.test(group).accuracy,
    )


@pytest.mark.parametrize("net", ["lenet5", "batch-norm"])
def test_losses_gradients_and_probe_are_those_of_one_worker(ranks, net):
    loss, val_loss, its_weights, statistics, *accuracies = ranks(1, trained, net, 1)[0]
    for size, groups in ((2, 1), (3, 2)):
        for told in ranks(size, trained, net, groups):
            assert told[0] == pytest.approx(loss, rel=1e-4)
            assert told[1] == pytest.approx(val_loss, rel=1e-3)
            assert told[2] == pytest.approx(its_weights, abs=1e-4)
            for mine, expected in zip(told[3], statistics, strict=True):
                assert mine == pytest.approx(expected, rel=1e-3, abs=1e-4)
            assert told[4:] == pytest.approx(accuracies, abs=0.03)  # of 144 and 360 samples


def test_a_training_can_begin_again_anywhere():
    whole, parts = twins("batch-norm"), twins("batch-norm")
    whole.train(1, range(4), [0.02] * 4, whole.workers.world, 1)
    torch.manual_seed(99)  # what others draw does not matter
    parts.train(1, range(2), [0.02] * 2, parts.workers.world, 1)
    parts.evaluate(parts.data.validation, parts.workers.world)
    halfway = parts.state.save(parts.state.empty())
    torch.rand(3)
    later = twins("batch-norm")
    later.state.load(halfway)
    later.train(1, range(2, 4), [0.02] * 2, later.workers.world, 1)
    assert later.state.digest() == whole.state.digest()


def test_the_seed_decides_the_net_and_the_views():
    one, again, other = twins("lenet5"), twins("lenet5"), twins("lenet5", seed=1)
    assert one.state.digest() == again.state.digest() != other.state.digest()
    inputs = [trainer._inputs(1, 0, [0], range(48), torch.arange(48))[0] for trainer in (one, again, other)]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])
    assert not torch.equal(inputs[0], one._inputs(1, 1, [0], range(48), torch.arange(96))[0])
    assert not torch.equal(inputs[0], one._inputs(2, 0, [0], range(48), torch.arange(48))[0])


def test_an_evaluation_changes_nothing_and_comes_to_the_same_again():
    trainer = twins("batch-norm")
    digest = trainer.state.digest()
    world, validation = trainer.workers.world, trainer.data.validation
    both = trainer.evaluate(validation, world)
    assert trainer.evaluate(validation, world) == both
    loss_alone = trainer.evaluate(validation, world, accuracy=False)
    assert loss_alone.loss == both.loss
    assert math.isnan(loss_alone.accuracy)
    assert trainer.state.digest() == digest
    assert trainer.evaluation_samples(validation) == 144 + 200
    assert trainer.evaluation_samples(validation, accuracy=False) == 144


def test_what_is_kept_of_a_validation_split_is_not_read_again():
    trainer = twins("lenet5")
    world, validation = trainer.workers.world, trainer.data.validation
    first = trainer.evaluate(validation, world, accuracy=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Split, "read")
        assert trainer.evaluate(validation, world, accuracy=False).loss == first.loss


def test_the_probe_sees_plain_training_images_alone():
    trainer = twins("lenet5")
    seen, batch = [], Split.batch

    def recorded(split, indices, device):
        if split is trainer.data.train:
            seen.extend(indices.tolist())
        return batch(split, indices, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Split, "batch", recorded)
        trainer.test(trainer.workers.world)
    assert len(seen) == len(set(seen)) == 200
    assert sorted(seen) != list(range(200))  # drawn


STEPS = {"lr_set": {"learning_rates": [0.01, 0.003]}, "pretrain": {"iterations": 5}, "main_train": {"iterations": 5}}


def test_an_stpt_training_learns_and_counts_its_evaluations():
    made = []

    def counted(images, seeds, augment):
        made.extend(seeds)
        return two_views(images, seeds, augment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "two_views", counted)
        records = list(make_stpt("lenet5", task=TASK, metric="val_loss", guards={"extend": False}, **STEPS).epochs())
    assert len(made) == len(set(made)) == 144 + 3 * 10 * 64  # for both branches once, and for the validation split
    assert records[-1].val_loss < 0.9 * records[0].val_loss
    assert min(record.val_accuracy for record in records) > 0.3  # chance: 0.1
    assert min(record.test_accuracy for record in records) > 0.3
    assert [record.samples for record in records] == [(2 * 5 + 5) * 64] * 3
    # the first epoch: its start, and two branches, whether dead and by their metric; all: two probes at the end
    assert [record.evaluation_samples for record in records] == [
        144 + 4 * 144 + 144 + 360 + 2 * 200,
        2 * 144 + 144 + 360 + 2 * 200,
        2 * 144 + 144 + 360 + 2 * 200,
    ]


def test_branches_may_be_judged_by_the_probe():
    stpt = make_stpt("lenet5", task=TASK, metric="val_accuracy", epochs=1, **STEPS)
    [record] = stpt.epochs()
    assert record.learning_rate == max(record.branches, key=lambda branch: branch.metric).learning_rate
    assert all(branch.metric * 144 == pytest.approx(round(branch.metric * 144)) for branch in record.branches)
    assert record.evaluation_samples == 2 * (144 + 200) + 144 + 360 + 2 * 200


def test_weights_that_are_not_finite_make_the_loss_so():
    trainer = twins("lenet5")
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.inf)
    assert not math.isfinite(trainer.evaluate(digits().validation, trainer.workers.world, accuracy=False).loss)
    assert not math.isfinite(trainer.train(1, range(1), [0.1], trainer.workers.world, 1).loss)


@pytest.mark.parametrize(("name", "features"), [("lenet5", 84), ("lenet5-bn", 84), ("resnet18-cifar", 512)])
def test_features_stand_before_the_last_layer(name, features):
    with torch.device("meta"):
        model = BUILDERS[name](10, 1, 28)
        assert cut_head(model) == features
        assert model.eval()(torch.empty(2, 1, 28, 28)).shape == (2, features)


def test_every_backbone_has_a_head_that_can_be_cut():
    assert len(BACKBONES) == 14
    with torch.device("meta"):
        assert {cut_head(BUILDERS[name](10, 3, 64)) for name in BACKBONES} == {84, 512, 2048}


def test_labels_play_no_part_in_training():
    trainer = twins("lenet5")
    assert isinstance(trainer.task, BarlowTwins)
    images, labels = trainer._inputs(1, 0, [0], range(48), torch.arange(48))
    world = trainer.workers.world
    losses = [trainer.task.loss(trainer.model, images, its, world)[0].item() for its in (labels, torch.zeros(48))]
    assert images.shape == (96, 1, 28, 28)
    assert losses[0] == losses[1]
    assert trainer.workers.device == CPU
