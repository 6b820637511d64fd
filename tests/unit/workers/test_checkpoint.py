"""A checkpoint is there whole or not at all, and loads only when every byte is as it was."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.wire.worker import CheckpointRef, ResumePoint
from workers import checkpoint
from workers.checkpoint import Position, UnusableCheckpoint

TENSORS = {
    "model.weight": torch.arange(6.0).view(2, 3),
    "model.batches": torch.tensor(7),
    "optimizer.weight.momentum_buffer": torch.full((2, 3), -0.5),
}
POSITION = Position(
    epochs=3,
    learning_rate=0.1 + 0.2,
    last_learning_rate=0.1,
    val_loss=0.5,
    val_accuracies=[0.25, 0.5, 0.75],
    selector_state={"since": 2},
)


def point(epoch: int, val_accuracy: float, ref: CheckpointRef) -> ResumePoint:
    return ResumePoint(epoch=epoch, val_accuracy=val_accuracy, checkpoint=ref)


def named(name: str) -> CheckpointRef:
    return CheckpointRef(name=name, manifest_sha256="0" * 64)


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    ref = checkpoint.save(tmp_path, "epoch-000003-a1", TENSORS, POSITION)
    tensors, position = checkpoint.load(tmp_path, ref, TENSORS)
    assert position == POSITION
    assert list(tensors) == sorted(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000003-a1"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_bit_or_cut_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    ref = checkpoint.save(folder, "epoch-000003-a1", TENSORS, POSITION)
    path = folder / ref.name / data.draw(st.sampled_from([checkpoint.STATE, checkpoint.TRAINING, checkpoint.MANIFEST]))
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[where] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[where:]
    path.write_bytes(content)
    with pytest.raises(UnusableCheckpoint):
        checkpoint.load(folder, ref, TENSORS)


def test_the_newest_that_verifies_is_taken_and_the_others_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = checkpoint.save(tmp_path, "epoch-000001-a1", TENSORS, Position(epochs=1, learning_rate=0.1))
    new = checkpoint.save(tmp_path, "epoch-000002-a1", TENSORS, Position(epochs=2, learning_rate=0.2))
    with (tmp_path / new.name / checkpoint.STATE).open("r+b") as file:
        file.truncate(100)
    points = [point(3, 0.5, named("epoch-000003-a1")), point(2, 0.5, new), point(1, 0.5, old)]
    found = checkpoint.load_newest(tmp_path, points, TENSORS)
    assert found is not None
    assert found[1] == Position(epochs=1, learning_rate=0.1)
    assert "the checkpoint of epoch 3 cannot be used" in caplog.text
    assert "state.safetensors is not as it was written" in caplog.text
    assert checkpoint.load_newest(tmp_path, points[:2], TENSORS) is None


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    ref = checkpoint.save(tmp_path, "epoch-000003-a1", TENSORS, POSITION)
    wider = TENSORS | {"model.weight": torch.zeros(3, 3)}
    with pytest.raises(UnusableCheckpoint, match="another model"):
        checkpoint.load(tmp_path, ref, wider)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    ref = checkpoint.save(tmp_path, "epoch-000003-a1", TENSORS, POSITION)
    assert (tmp_path / ref.name / checkpoint.STATE).read_bytes()[8:9] == b"{"  # safetensors: a JSON header
    assert json.loads((tmp_path / ref.name / checkpoint.TRAINING).read_text()) == {
        "epochs": 3,
        "learning_rate": 0.30000000000000004,
        "last_learning_rate": 0.1,
        "val_loss": 0.5,
        "val_accuracies": [0.25, 0.5, 0.75],
        "selector_state": {"since": 2},
        "samples": 0,
        "key": None,
        "optimizer": [],
    }


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    accuracies = [0.1, 0.9, 0.9, 0.4, 0.5]  # of equals the first is the best
    points = [
        point(epoch, accuracy, checkpoint.save(tmp_path, f"epoch-{epoch:06d}-a1", TENSORS, POSITION))
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    (tmp_path / ".epoch-000006-a1").mkdir()  # a writer was killed here
    checkpoint.prune(tmp_path, checkpoint.to_keep(points))
    kept = ["epoch-000002-a1", "epoch-000004-a1", "epoch-000005-a1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
