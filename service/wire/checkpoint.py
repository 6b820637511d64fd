"""The files of a checkpoint, as a training writes them and the API reads them; nothing of them is unpickled.

    <storage>/<job>/checkpoints/<label>-<trial>/epoch-000012-a1/
        state.safetensors    parameters, buffers and the optimizer's state
        training.json        where the training stands
        manifest.json        size and SHA-256 of the other two

SQL keeps the manifest's SHA-256 with the epoch, so that every byte is vouched for.
"""

import hashlib
import json
from io import BufferedReader
from pathlib import Path
from typing import Literal

from service.wire.worker import CheckpointRef

STATE, TRAINING, MANIFEST = "state.safetensors", "training.json", "manifest.json"
MODEL = "model."  # what the names of the model's parameters and buffers begin with; the others are the optimizer's

Which = Literal["best", "last"]  # of a training's epochs: that with the best validation accuracy, or the last


class UnusableCheckpoint(Exception):
    """A checkpoint cannot be loaded: it is absent, incomplete, altered, or of another model."""


def checkpoints_of(storage: Path, job_id: str) -> Path:
    """The folder of a job's checkpoints; `storage` is the folder of all jobs' files."""
    return storage / job_id / "checkpoints"


def folder_of(checkpoints: Path, label: str, trial: int) -> Path:
    """The folder of the checkpoints of one training, a trial of the run with that label, in those of its job."""
    return checkpoints / f"{label}-{trial}"


def facts_of(file: BufferedReader) -> dict[str, int | str]:
    """The size in bytes and SHA-256 of a file that was just opened, as a manifest has them; the file is read to its
    end."""
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": file.tell(), "sha256": sha256}


def open_state(folder: Path, ref: CheckpointRef) -> BufferedReader:
    """Open the file with the tensors of a checkpoint in `folder`, every byte as it was written. Raises
    UnusableCheckpoint where it is absent or not as recorded."""
    try:
        manifest = (folder / ref.name / MANIFEST).read_bytes()
        if hashlib.sha256(manifest).hexdigest() != ref.manifest_sha256:
            raise UnusableCheckpoint(f"{MANIFEST} is not the recorded one")
        file = (folder / ref.name / STATE).open("rb")
    except OSError as error:
        raise UnusableCheckpoint(f"{error.strerror}: {error.filename}") from error
    if facts_of(file) != json.loads(manifest)[STATE]:
        file.close()
        raise UnusableCheckpoint(f"{STATE} is not as it was written")
    file.seek(0)
    return file
