"""Checkpoints: safetensors, JSON and a manifest (service/wire/checkpoint.py), each in a folder that is there whole or
not at all.

Data order and random numbers are functions of (seed, epoch, iteration), see `workers.trainings`: nothing more is needed
to go on as if nothing had happened. SQL keeps the manifest's SHA-256 with the epoch: a checkpoint counts once its epoch
is recorded, and is loaded only when every byte is as it was. Nothing is unpickled.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.algorithms.trajectory import best_of
from service.spec.types import Frozen, LearningRate
from service.wire.checkpoint import MANIFEST, STATE, TRAINING, UnusableCheckpoint, facts_of
from service.wire.worker import Accuracy, AppliedRate, CheckpointRef, ResumePoint

log = logging.getLogger(__name__)

KEEP_LAST = 2  # and the best: one more than needed, should the newest not verify


class Position(Frozen):
    """Where a training stands: `epochs` of them are done, and `learning_rate` is the one from which the next is
    chosen."""

    epochs: int = Field(0, ge=0)
    learning_rate: LearningRate
    last_learning_rate: AppliedRate | None = None  # of the last iteration, under lr_schedule
    val_loss: float | None = None
    val_accuracies: list[Accuracy] = []  # of every epoch
    selector_state: dict[str, Any] = {}
    samples: int = Field(0, ge=0)  # training samples that took
    key: str | None = None  # of the trial of a search
    optimizer: list[dict[str, Any]] = []  # what the optimizer counts besides its tensors


def save(folder: Path, name: str, tensors: Mapping[str, Tensor], position: Position) -> CheckpointRef:
    """Write the checkpoint `folder/name`, and return the reference by which it is loaded. When this returns it survives
    a power cut. An existing one of this name is replaced. What remains of one that cannot be written is removed."""
    unfinished = folder / f".{name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, unfinished / STATE)
        (unfinished / TRAINING).write_text(position.model_dump_json())
        manifest = json.dumps({file: _facts(unfinished / file) for file in (STATE, TRAINING)}).encode()
        (unfinished / MANIFEST).write_bytes(manifest)
        for path in (*unfinished.iterdir(), unfinished):
            _flush(path)
        shutil.rmtree(folder / name, ignore_errors=True)
        unfinished.rename(folder / name)
        _flush(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return CheckpointRef(name=name, manifest_sha256=hashlib.sha256(manifest).hexdigest())


def load(folder: Path, ref: CheckpointRef, like: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Position]:
    """The tensors of a checkpoint, on the CPU, and its position. Raises UnusableCheckpoint unless every byte is as it
    was saved and the tensors have the names, shapes and types of `like`."""
    return _load(folder / ref.name, ref.manifest_sha256, like)


@torch.no_grad()
def load_into(path: Path, tensors: Mapping[str, Tensor]) -> Position:
    """Fill `tensors` from the checkpoint in `path`, whose manifest nobody else has vouched for, and return its
    position. Raises UnusableCheckpoint."""
    loaded, position = _load(path, None, tensors)
    for name, tensor in tensors.items():
        tensor.copy_(loaded[name])
    return position


def _load(path: Path, manifest_sha256: str | None, like: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Position]:
    try:
        manifest = (path / MANIFEST).read_bytes()
        if manifest_sha256 not in (None, hashlib.sha256(manifest).hexdigest()):
            raise UnusableCheckpoint(f"{path / MANIFEST} is not the recorded one")
        for file, facts in json.loads(manifest).items():
            if _facts(path / file) != facts:
                raise UnusableCheckpoint(f"{path / file} is not as it was written")
        position = Position.model_validate_json((path / TRAINING).read_bytes())
        tensors = load_file(path / STATE)
    except (OSError, ValueError, ValidationError, SafetensorError) as error:
        raise UnusableCheckpoint(f"{path}: {error}") from error
    if _shapes(tensors) != _shapes(like):
        raise UnusableCheckpoint(f"{path} is of another model or optimizer")
    return tensors, position


def load_newest(
    folder: Path, points: Sequence[ResumePoint], like: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Position] | None:
    """The tensors and the position of the first of `points`, newest first, that verifies; those that do not are passed
    over with a warning. None where none does."""
    for point in points:
        try:
            return load(folder, point.checkpoint, like)
        except UnusableCheckpoint as error:
            log.warning("the checkpoint of epoch %d cannot be used: %s", point.epoch, error)
    return None


def to_keep(points: Sequence[ResumePoint]) -> set[str]:
    """Names of the checkpoints to keep: the last KEEP_LAST of `points`, and the one with the best validation
    accuracy."""
    newest = sorted(points, key=lambda point: point.epoch)[-KEEP_LAST:]
    return {point.checkpoint.name for point in [*newest, best_of(points)]}


def prune(folder: Path, keep: Collection[str]) -> None:
    """Delete every checkpoint in `folder` but those named in `keep`, unfinished ones too."""
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path)


def _facts(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return facts_of(file)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[object, ...]]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
