"""The weights of a training's model, out of the checkpoints that it left, as a safetensors file of their own.

A training keeps the checkpoints of its last two epochs and of the one with the best validation accuracy, after it has
ended too. A checkpoint holds the optimizer's state as well; what is served are the bytes of the model's tensors behind
a header of their own (the format: 8 bytes of length, a JSON header, then the tensors without a gap), so that neither
torch nor numpy is needed, and nothing is unpickled.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from service.algorithms.candidates import trials_of
from service.algorithms.trajectory import best_of, newest_trajectory
from service.errors import FieldError, NoWeights
from service.spec.job import JobSpec
from service.store.engine import Session, Store
from service.store.epochs import epochs_of_trial
from service.store.jobs import get_job, job_spec
from service.store.records import Epoch
from service.store.trials import get_trial
from service.wire.checkpoint import MODEL, UnusableCheckpoint, Which, checkpoints_of, folder_of, open_state
from service.wire.worker import CheckpointRef

log = logging.getLogger(__name__)

CHUNK = 2**20  # bytes


@dataclass(frozen=True)
class Weights:
    """A safetensors file to be sent: its name, its size in bytes, the SHA-256 of its bytes, and these in `chunks`,
    which can be read once."""

    file_name: str
    size: int
    sha256: bytes
    chunks: Iterator[bytes]


def open_weights(
    db: Store, storage: Path, job_id: str, *, which: Which, label: str | None = None, trial: int = 1
) -> Weights:
    """Open the weights of a trial's model (by default of the job's first run) as they were after an epoch.

    `which`: the epoch with the best validation accuracy, or the last one, of those that left a checkpoint: one that
    diverged leaves none. `storage`: the folder of all jobs' files. Raises NotFound where there is no such job, and
    NoWeights where there is no such trial, or nothing of it to load.
    """
    with db.read() as session:
        spec = job_spec(get_job(session, job_id))
        name = label or spec.methods[0].label
        epoch = _epoch(session, job_id, spec, name, trial, which)
    ref = CheckpointRef.model_validate(epoch.checkpoint)
    try:
        file = open_state(folder_of(checkpoints_of(storage, job_id), name, trial), ref)
    except UnusableCheckpoint as error:
        log.warning("the checkpoint of epoch %d of %s %d of job %s: %s", epoch.epoch, name, trial, job_id, error)
        other = "last" if which == "best" else "best"
        message = (
            f"the checkpoint of epoch {epoch.epoch} is gone, or not as it was written; ask for which={other}, or "
            f"submit the job again"
        )
        raise NoWeights([FieldError("which", which, message)]) from None
    facts = {"job": job_id, "label": name, "trial": trial, "epoch": epoch.epoch, "model": spec.model}
    facts |= {"dataset": spec.dataset.name, "val_accuracy": epoch.val_accuracy, "test_accuracy": epoch.test_accuracy}
    return _model_of(file, f"{job_id}-{name}-{trial}-epoch-{epoch.epoch}.safetensors", facts)


def _epoch(session: Session, job_id: str, spec: JobSpec, label: str, trial: int, which: Which) -> Epoch:
    """The epoch that is asked for, which has a checkpoint. Raises NoWeights."""
    run = spec.run(label)
    if run is None:
        names = ", ".join(known.label for known in spec.methods)
        raise NoWeights([FieldError("label", label, f"job {job_id} has no such run; it has {names}")])
    if run.is_search:
        message = (
            f"the trials of a search leave no checkpoints; train what it found by a job of its own, with the "
            f"hyperparameters that GET /v1/jobs/{job_id}/trials has"
        )
        raise NoWeights([FieldError("label", label, message)])
    row = get_trial(session, job_id, label, trial)
    if row is None:
        trials = spec.seeds * trials_of(spec, run)
        raise NoWeights([FieldError("trial", trial, f"job {job_id} has the trials 1 to {trials} of {label}")])
    left = [epoch for epoch in newest_trajectory(epochs_of_trial(session, row.id)) if epoch.checkpoint is not None]
    if not left:
        message = (
            f"job {job_id} has recorded no epoch of {label} {trial} that left a checkpoint; wait for the first: "
            f"GET /v1/jobs/{job_id}/events tells of it, and of the job's end"
        )
        raise NoWeights([FieldError("which", which, message)])
    return best_of(left) if which == "best" else left[-1]


def _model_of(file: BufferedReader, file_name: str, facts: dict[str, Any]) -> Weights:
    """The model's part of a checkpoint's tensors; its header names what they are."""
    length = int.from_bytes(file.read(8), "little")
    known = json.loads(file.read(length))
    spans: list[tuple[int, int]] = []  # in the file, of the tensors' bytes
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"} | {key: str(value) for key, value in facts.items()}}
    size = 0
    for tensor in sorted((name for name in known if name.startswith(MODEL)), key=lambda n: known[n]["data_offsets"]):
        begin, end = known[tensor]["data_offsets"]
        spans.append((8 + length + begin, 8 + length + end))
        entries[tensor.removeprefix(MODEL)] = known[tensor] | {"data_offsets": [size, size + end - begin]}
        size += end - begin
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8 bytes
    head = len(header).to_bytes(8, "little") + header
    sha256 = hashlib.sha256()
    for chunk in _read(file, head, spans):
        sha256.update(chunk)
    return Weights(file_name, len(head) + size, sha256.digest(), _read_and_close(file, head, spans))


def _read(file: BufferedReader, head: bytes, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    yield head
    for begin, end in spans:
        file.seek(begin)
        for at in range(begin, end, CHUNK):
            yield file.read(min(CHUNK, end - at))


def _read_and_close(file: BufferedReader, head: bytes, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    with file:
        yield from _read(file, head, spans)
