"""The loop that every method shares: one iteration is the same work in every placement."""

import copy
import math
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from service.spec.job import JobSpec
from tests.builders import spec_document
from tests.unit.workers.ranks import CPU, digits, make_trainer, stpt_of
from workers.build import build_trainer
from workers.datasets.load import ImageFiles, load_data
from workers.engine.groups import Workers
from workers.engine.trainer import Measurement, frozen_statistics
from workers.methods.scheduled import constant
from workers.models import build as models
from workers.tasks import build as tasks

pytest_plugins = ["tests.unit.workers.ranks"]

TOLERANCE = 1e-5  # of a weight, from sums in another order; learning rates are tame


def weights(trainer):
    return torch.cat([parameter.detach().reshape(-1) for parameter in trainer.model.parameters()]).tolist()


def near(expected):
    return pytest.approx(expected, rel=0, abs=TOLERANCE)


# --- measurements and order -------------------------------------------------------------------------


def test_a_measurement_is_sums_over_samples():
    one, other = Measurement(3.0, 2.0, 4), Measurement(1.0, 4.0, 4)
    assert (one.loss, one.accuracy) == (0.75, 0.5)
    assert one + other == Measurement(4.0, 6.0, 8)
    assert one + Measurement(0.0, 0.0, 0) == one
    assert not math.isfinite((one + Measurement(math.nan, 0.0, 4)).loss)


def test_nothing_measured_is_nan():
    nothing = Measurement(0.0, 0.0, 0)
    assert math.isnan(nothing.loss)
    assert math.isnan(nothing.accuracy)


def test_an_epochs_order_holds_each_sample_once():
    trainer = make_trainer("lenet5", seed=3)
    orders = [trainer._order(epoch).tolist() for epoch in (1, 2)]
    assert [sorted(order) for order in orders] == [list(range(1293))] * 2
    assert orders[0] != orders[1]
    assert make_trainer("lenet5", seed=3)._order(1).tolist() == orders[0]
    assert make_trainer("lenet5", seed=4)._order(1).tolist() != orders[0]


# --- steps -----------------------------------------------------------------------------------------


def reference_steps(trainer, epoch, iterations, learning_rate):
    """Plain torch on whole global batches: the loss of each, and the weights."""
    model, spec = copy.deepcopy(trainer.model), trainer.spec
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    order, size = trainer._order(epoch), spec.global_batch_size
    losses = []
    for iteration in iterations:
        images, labels = trainer.data.train.batch(order[iteration * size : (iteration + 1) * size], CPU)
        loss = cross_entropy(model(images), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]).tolist()


def test_one_worker_trains_as_plain_torch():
    trainer = make_trainer("lenet5", global_batch_size=48)
    losses, expected = reference_steps(trainer, 2, range(1, 4), 0.05)
    measured = trainer.train(2, range(1, 4), [0.05] * 3, trainer.workers.world, 1)
    assert weights(trainer) == near(expected)
    assert measured.samples == 3 * 48
    assert measured.loss == pytest.approx(sum(losses) / 3, abs=1e-6)


def trained_in_a_group(groups, forwards_of_ddp):
    """Three iterations in this rank's group of the split, on all microbatches: as plain torch."""
    calls, forward = [], DistributedDataParallel.forward

    def counted(replica, *inputs):
        calls.append(1)
        return forward(replica, *inputs)

    trainer = make_trainer("lenet5", global_batch_size=48)
    losses, expected = reference_steps(trainer, 1, range(3), 0.05)
    with patch.object(DistributedDataParallel, "forward", counted):
        group = trainer.workers.split(groups)
        measured = trainer.train(1, range(3), [0.05] * 3, group, trainer.workers.size)
    assert len(calls) == forwards_of_ddp
    assert measured.samples == 3 * 48
    assert measured.loss == pytest.approx(sum(losses) / 3, abs=1e-6)
    assert weights(trainer) == near(expected)
    return group.number, trainer.state.digest()


@pytest.mark.parametrize(("size", "groups"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (4, 3)])
def test_a_group_of_any_size_trains_as_plain_torch_and_only_the_world_with_ddp(ranks, size, groups):
    digests = ranks(size, trained_in_a_group, groups, 3 if groups == 1 else 0)
    assert len(set(digests)) == groups  # the same bits in all workers of a group


def trained_on_fewer_microbatches(microbatches):
    """Three iterations of the world on the first microbatches alone: as plain torch on smaller batches."""
    trainer = make_trainer("lenet5", global_batch_size=48)
    order, share = trainer._order(1), 48 // trainer.workers.size * microbatches
    firsts = torch.cat([order[i * 48 : i * 48 + share] for i in range(3)])
    reference = copy.copy(trainer)
    reference.spec = trainer.spec.model_copy(update={"global_batch_size": share})
    reference._order = lambda epoch: firsts
    losses, expected = reference_steps(reference, 1, range(3), 0.05)
    measured = trainer.train(1, range(3), [0.05] * 3, trainer.workers.world, microbatches)
    assert weights(trainer) == near(expected)
    assert measured.samples == 3 * share
    assert measured.loss == pytest.approx(sum(losses) / 3, abs=1e-6)
    return trainer.state.digest()


def test_a_worker_without_a_share_keeps_in_step(ranks):
    assert len(set(ranks(3, trained_on_fewer_microbatches, 1))) == 1
    assert len(set(ranks(3, trained_on_fewer_microbatches, 2))) == 1


# --- gradient accumulation -------------------------------------------------------------------------


def test_the_passes_over_a_share_are_as_equal_as_can_be():
    def passes(share, microbatch_size):
        spec = spec_document(global_batch_size=4 * share, workers=4, microbatch_size=microbatch_size)
        return JobSpec.model_validate(spec).passes

    assert [passes(48, size) for size in (None, 64, 48)] == [[48]] * 3
    assert passes(48, 16) == [16, 16, 16]
    assert passes(48, 47) == [24, 24]
    assert passes(11, 4) == [4, 4, 3]
    assert passes(3, 1) == [1, 1, 1]


def accumulated(groups, microbatch_size, passes):
    """Three iterations in this rank's group, in several passes over each share: as plain torch on whole batches."""
    trainer = make_trainer("lenet5", global_batch_size=48, microbatch_size=microbatch_size)
    losses, expected = reference_steps(trainer, 1, range(3), 0.05)
    sizes = []
    trainer.model.register_forward_hook(lambda model, inputs, outputs: sizes.append(len(outputs)))
    group = trainer.workers.split(groups)
    measured = trainer.train(1, range(3), [0.05] * 3, group, trainer.workers.size)
    assert sizes == passes * (3 * trainer.workers.size // group.size)
    assert weights(trainer) == near(expected)
    assert measured.samples == 3 * 48
    assert trainer.samples_seen == 3 * 48 // group.size
    assert measured.loss == pytest.approx(sum(losses) / 3, abs=1e-6)
    return group.number, trainer.state.digest()


@pytest.mark.parametrize(
    ("size", "groups", "microbatch_size", "passes"),
    [(1, 1, 20, [16, 16, 16]), (2, 1, 10, [8, 8, 8]), (2, 2, 16, [12, 12]), (4, 1, 5, [4, 4, 4])],
)
def test_several_passes_over_a_share_have_its_gradient(ranks, size, groups, microbatch_size, passes):
    digests = ranks(size, accumulated, groups, microbatch_size, passes)
    assert len(set(digests)) == groups


def test_a_pass_over_the_whole_share_changes_no_bit():
    digests = []
    for microbatch_size in (None, 48):
        trainer = make_trainer("batch-norm", global_batch_size=48, microbatch_size=microbatch_size)
        trainer.train(1, range(2), [0.05] * 2, trainer.workers.world, 1)
        digests.append(trainer.state.digest())
    assert digests[0] == digests[1]


def test_running_statistics_are_those_of_the_first_pass():
    trainer = make_trainer("batch-norm", global_batch_size=48, microbatch_size=20)
    first = make_trainer("batch-norm", global_batch_size=48)
    images, _ = first.data.train.batch(first._order(1)[:16], CPU)
    first.model.train()
    first.model(images)
    trainer.train(1, range(1), [0.05], trainer.workers.world, 1)
    for mine, theirs in zip(statistics(trainer.model), statistics(first.model), strict=True):
        assert mine == near(theirs)


def test_a_batch_of_16384_on_one_worker():
    """On random images, by a net of one layer: one iteration of 32 passes is the whole gradient."""
    data, samples = digits(), 16_384
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (samples,), generator=generator)
    train = replace(data.train, images=images, labels=labels, rows=torch.arange(samples))
    spec = JobSpec.model_validate(spec_document(global_batch_size=samples, microbatch_size=512))
    tiny = {"lenet5": lambda classes, channels, size: nn.Sequential(nn.Flatten(), nn.Linear(size**2, classes))}
    with patch.dict(models.BUILDERS, tiny):
        trainer = build_trainer(spec, replace(data, train=train), Workers(CPU))
    losses, expected = reference_steps(trainer, 1, range(1), 0.05)
    measured = trainer.train(1, range(1), [0.05], trainer.workers.world, 1)
    assert (measured.samples, trainer.samples_seen) == (samples, samples)
    assert measured.loss == pytest.approx(losses[0], abs=1e-5)
    assert weights(trainer) == near(expected)


@pytest.mark.parametrize("net", ["dropout", "batch-norm"])
def test_a_training_can_begin_again_anywhere(net):
    whole, parts = make_trainer(net), make_trainer(net)
    assert whole.state.digest() == parts.state.digest()
    whole.train(1, range(4), [0.1] * 4, whole.workers.world, 1)
    torch.manual_seed(99)  # what others draw does not matter
    parts.train(1, range(2), [0.1] * 2, parts.workers.world, 1)
    halfway = parts.state.save(parts.state.empty())
    torch.rand(3)
    later = make_trainer(net)
    later.state.load(halfway)
    later.train(1, range(2, 4), [0.1] * 2, later.workers.world, 1)
    assert later.state.digest() == whole.state.digest()


def dropout_in_two_placements(groups):
    """Weights after three iterations by the world, and by this rank's group of the split."""
    trained = []
    for count in (1, groups):
        trainer = make_trainer("dropout", global_batch_size=48)
        trainer.train(1, range(3), [0.05] * 3, trainer.workers.split(count), trainer.workers.size)
        trained.append(weights(trainer))
    return trained


@pytest.mark.parametrize(("size", "groups"), [(2, 2), (3, 2)])
def test_dropout_drops_the_same_in_every_placement(ranks, size, groups):
    for by_world, by_group in ranks(size, dropout_in_two_placements, groups):
        assert by_group == near(by_world)


def test_dropout_depends_on_seed_epoch_iteration_and_microbatch():
    masks = []

    class Recorded(nn.Module):
        def forward(self, images):
            masks.append(tuple(nn.functional.dropout(torch.ones(64), 0.5).tolist()))
            return images.flatten(1)[:, :10]

    for seed in (0, 1):
        trainer = make_trainer("lenet5", seed=seed)
        trainer.model = nn.Sequential(Recorded(), nn.Linear(10, 10))
        for epoch in (1, 2):
            trainer.train(epoch, range(3), [0.1] * 3, trainer.workers.world, 2)
    assert len(masks) == len(set(masks)) == 24


# --- batch normalisation ---------------------------------------------------------------------------


def statistics(model):
    return [buffer.tolist() for buffer in model.buffers()]


def statistics_in_two_placements(groups):
    """Running statistics after three iterations: of plain DDP on this rank, and of this rank's group of the split."""
    trainer = make_trainer("batch-norm", global_batch_size=48)
    workers, spec = trainer.workers, trainer.spec
    replica = DistributedDataParallel(copy.deepcopy(trainer.model), broadcast_buffers=False)
    optimizer = torch.optim.SGD(replica.parameters(), lr=0.05, momentum=0.9)
    order = trainer._order(1)
    for iteration in range(3):
        first = iteration * 48 + workers.rank * spec.batch_per_worker
        images, labels = trainer.data.train.batch(order[first : first + spec.batch_per_worker], CPU)
        optimizer.zero_grad()
        cross_entropy(replica(images), labels).backward()
        optimizer.step()
    trainer.train(1, range(3), [0.05] * 3, workers.split(groups), workers.size)
    assert all(m.track_running_stats for m in trainer.model.modules() if isinstance(m, nn.BatchNorm2d))
    return statistics(replica.module), statistics(trainer.model)


@pytest.mark.parametrize(("size", "groups"), [(2, 1), (2, 2), (3, 2), (4, 2)])
def test_running_statistics_are_those_of_plain_ddps_rank_0(ranks, size, groups):
    told = ranks(size, statistics_in_two_placements, groups)
    expected, other = told[0][0], told[1][0]
    assert expected[0] != near(other[0])  # each rank of DDP sees its own batch: there is something to tell apart
    for _, ours in told:
        for mine, theirs in zip(ours, expected, strict=True):
            assert mine == near(theirs)
        assert ours[2] == 3  # num_batches_tracked: once an iteration


def test_frozen_statistics_change_nothing_but_the_statistics():
    torch.manual_seed(0)
    never = nn.BatchNorm2d(2, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2, momentum=None), never)
    plain, images = copy.deepcopy(model), torch.randn(4, 1, 6, 6)
    before = statistics(model)
    with frozen_statistics(model):
        outputs = model(images)
    assert torch.equal(outputs, plain(images))
    assert statistics(model) == before != statistics(plain)
    assert [m.track_running_stats for m in model if isinstance(m, nn.BatchNorm2d)] == [True, True, False]
    model(images)
    assert statistics(model) == statistics(plain)


def test_statistics_thaw_after_an_error():
    layer = nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="2D or 3D"), frozen_statistics(layer):
        layer(torch.zeros(2))
    assert layer.track_running_stats


# --- evaluation ------------------------------------------------------------------------------------


@contextmanager
def small_passes(samples):
    with patch.object(tasks, "EVALUATION_BATCH", samples):
        yield


def plainly_evaluated(model, split):
    model = copy.deepcopy(model).eval()
    images, labels = split.batch(torch.arange(len(split)), CPU)
    outputs = model(images)
    correct = (outputs.argmax(1) == labels).sum().item()
    return cross_entropy(outputs, labels, reduction="sum").item(), correct, len(split)


def evaluated(samples_a_pass, split_samples):
    """Every rank's measurement of the first so many validation images; whole passes of 7 samples each see no more."""
    trainer = make_trainer("batch-norm")
    trainer.train(1, range(2), [0.1] * 2, trainer.workers.world, trainer.workers.size)
    validation = trainer.data.validation
    split = replace(validation, rows=validation.rows[:split_samples])
    digest, sizes = trainer.state.digest(), []
    trainer.model.register_forward_hook(lambda model, inputs, outputs: sizes.append((len(outputs), model.training)))
    with small_passes(samples_a_pass):
        measured = trainer.evaluate(split, trainer.workers.world)
    assert trainer.state.digest() == digest
    assert all(not training for _, training in sizes)
    passes = [size for size, _ in sizes]
    loss, correct, samples = plainly_evaluated(trainer.model, split)
    assert measured.loss_sum == pytest.approx(loss, rel=1e-5)
    assert (measured.correct, measured.samples) == (correct, samples)
    return passes


@pytest.mark.parametrize(
    ("size", "samples_a_pass", "split_samples", "passes"),
    [
        (1, 500, 144, [[144]]),
        (1, 144, 144, [[144]]),
        (1, 50, 144, [[50, 50, 44]]),
        (3, 500, 10, [[4], [3], [3]]),
        (3, 2, 10, [[2, 2], [2, 1], [2, 1]]),
        (4, 500, 4, [[1], [1], [1], [1]]),
        (4, 500, 2, [[1], [1], [], []]),  # more workers than samples
        (4, 500, 1, [[1], [], [], []]),
    ],
)
def test_a_group_shares_out_the_samples_of_an_evaluation(ranks, size, samples_a_pass, split_samples, passes):
    assert ranks(size, evaluated, samples_a_pass, split_samples) == passes


def test_a_worker_may_evaluate_alone():
    trainer = make_trainer("lenet5")
    measured = trainer.evaluate(digits().test, Workers(CPU).world)
    loss, correct, samples = plainly_evaluated(trainer.model, digits().test)
    assert measured.loss == pytest.approx(loss / 360, rel=1e-5)
    assert (measured.correct, measured.samples) == (correct, samples) == (correct, 360)


def test_weights_that_are_not_finite_make_the_loss_so():
    trainer = make_trainer("lenet5")
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.inf)
    assert not math.isfinite(trainer.evaluate(digits().validation, trainer.workers.world).loss)
    assert not math.isfinite(trainer.train(1, range(1), [0.1] * 1, trainer.workers.world, 1).loss)


# --- images and precision ------------------------------------------------------------------------------


def image_files(folder, **changes):
    """A trainer on 12 image files, 3 iterations an epoch, of which a Pre-train takes 2."""
    for split, images in (("train", 8), ("test", 1)):
        for label in ("a", "b"):
            (folder / "tree" / split / label).mkdir(parents=True)
            for number in range(images):
                Image.new("RGB", (12, 12), (40 * number % 256, 9, 9)).save(
                    folder / "tree" / split / label / f"{number}.png"
                )
    spec = JobSpec.model_validate(
        spec_document(
            dataset={"name": "image-folder", "path": "tree", "image_size": 12, "validation_fraction": 0.25},
            global_batch_size=4,
            pretrain={"iterations": 2},
            **changes,
        )
    )
    return build_trainer(spec, load_data(spec.dataset, folder, CPU), Workers(CPU))


def test_images_of_a_pretrain_are_decoded_once_for_all_branches(tmp_path):
    """alpha = 2 of 3 iterations of 4 images: 8 are decoded for three branches, 4 for Main-train, and no more."""
    trainer = image_files(tmp_path, epochs=2, lr_set={"learning_rates": [0.1, 0.05, 0.01]})
    decoded, original = [], ImageFiles.__getitem__

    def counted(self, rows):
        if self is trainer.data.train.images:
            decoded.extend(rows.tolist())
        return original(self, rows)

    validation = set(trainer.data.validation.rows.tolist())
    with patch.object(ImageFiles, "__getitem__", counted):
        for record in stpt_of(trainer).epochs():
            assert record.samples == (3 * 2 + 1) * 4
            trained = [row for row in decoded if row not in validation]
            assert len(trained) == len(set(trained)) == 12
            decoded.clear()


STAGES = [{"factors": [2.0, 1.0], "pretrain_share": 1.0}] * 2


@pytest.mark.parametrize("stages", [1, 2])
def test_a_warmup_longer_than_the_stages_keeps_no_images(tmp_path, stages):
    warmup = {"epochs": 3, "learning_rate": 0.01}
    trainer = image_files(tmp_path, epochs=5, warmup=warmup, lr_set={"stages": STAGES[:stages]})
    kept = [len(trainer._decoded) for _ in stpt_of(trainer).epochs()]
    assert kept == [0, 0, 0, 3, 3 if stages == 2 else 2]  # alpha of the last one epoch's Pre-train


def test_a_training_without_pretrain_keeps_no_images(tmp_path):
    trainer = image_files(tmp_path, epochs=1, lr_set={"learning_rates": [0.1, 0.05, 0.01]})
    list(constant(trainer, "cosine", 1, 0.01, "cosine").epochs())
    assert not trainer._decoded


def test_bfloat16_computes_in_16_bits_and_keeps_weights_in_32():
    ends = {}
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer("lenet5", precision=precision)
        before = trainer.evaluate(trainer.data.validation, trainer.workers.world)
        measured = trainer.train(1, range(10), [0.05] * 10, trainer.workers.world, 1)
        assert {tensor.dtype for name, tensor in trainer.tensors.items() if name.startswith("model")} == {torch.float32}
        ends[precision] = trainer.state.digest()
        assert measured.loss == pytest.approx(before.loss, rel=0.1)
    assert len(set(ends.values())) == 2
