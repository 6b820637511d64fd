"""A training that is played: a chain in which each epoch follows from the one before, and so from the checkpoint that
it went on from. One wrong or forgotten step changes every epoch behind it."""

import hashlib
from collections.abc import Sequence

from service.wire.worker import EpochRecord
from tests.builders import epoch_record
from tests.faults.invariants import Result, result_of

START = "0" * 64  # the state before the first epoch


def next_state(state: str) -> str:
    """The state behind the next epoch."""
    return hashlib.sha256(state.encode()).hexdigest()


def record_of(epoch: int, state: str, attempt: int) -> EpochRecord:
    """The report of an epoch that ended in this state, of which there is a checkpoint."""
    loss = int(state[:12], 16) / 16**12
    checkpoint = {
        "name": f"epoch-{epoch:06d}-a{attempt}",
        "manifest_sha256": hashlib.sha256(state.encode()).hexdigest(),
    }
    document = epoch_record(epoch, train_loss=loss, val_loss=loss / 2, checkpoint=checkpoint)
    return EpochRecord.model_validate(document)


def vouched_for(state: str, manifest_sha256: str) -> bool:
    """Whether a checkpoint has the state that was recorded for it."""
    return hashlib.sha256(state.encode()).hexdigest() == manifest_sha256


def undisturbed(epochs: int) -> Sequence[Result]:
    """The results of a training that nothing has happened to."""
    state, results = START, []
    for epoch in range(1, epochs + 1):
        state = next_state(state)
        results.append(result_of(record_of(epoch, state, 1)))
    return results
