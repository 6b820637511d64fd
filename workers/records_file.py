"""A recorder for trainings without a service: one line of JSON a report, in files beside the checkpoints."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from service.algorithms.candidates import trials_of
from service.spec.job import JobSpec
from service.spec.types import Frozen
from service.wire.worker import EpochRecord, ResumePoint, TrialProgress, TrialRecord
from workers.disk import until_written
from workers.trainings import resume_point


class RecordsFile:
    """A recorder for trainings without a service: it appends one line of JSON a report to files beside the
    checkpoints. `tell` is told what the training waits for; by default the log has it. Nobody can ask it for a pause.
    """

    pause_asked = False

    def __init__(self, folder: Path, tell: Callable[[str | None], None] = lambda _: None) -> None:
        self._epochs, self._trials, self.waits_for = folder / "records.jsonl", folder / "trials.jsonl", tell

    def trial(self, record: TrialRecord) -> None:
        """Append what is told of a trial; it is on disk when this returns."""
        self._append(self._trials, record)

    def epoch(self, record: EpochRecord) -> None:
        """Append the record of an epoch; it is on disk when this returns."""
        self._append(self._epochs, record)

    def waiting_epochs(self) -> int:
        """How many epochs are not on disk yet: none, ever."""
        return 0

    def flush(self) -> None:
        pass

    def points(self) -> list[ResumePoint]:
        """The recorded epochs that have a checkpoint to go on from, newest first."""
        return [resume_point(record, record.checkpoint) for record in reversed(self.records()) if record.checkpoint]

    def trials(self, spec: JobSpec) -> list[TrialProgress]:
        """The trials of `spec` that have begun, with the epochs and samples that they took."""
        told = {(record.label, record.trial): record for record in self.trial_records()}
        samples: dict[tuple[str, int], dict[int, int]] = {}
        for record in self.records():  # a later record of an epoch replaces an earlier one
            samples.setdefault((record.label, record.trial), {})[record.epoch] = record.samples
        per_seed: dict[str, int] = {method.label: trials_of(spec, method) for method in spec.methods}
        progress = []
        for (label, trial), epochs in samples.items():
            known = told.get((label, trial))
            length, state = (known.epochs, known.state) if known else (spec.epochs, "running")
            progress.append(
                TrialProgress(
                    label=label,
                    trial=trial,
                    key=None,
                    seed=spec.seed + (trial - 1) // per_seed[label],
                    config=known.config if known else {},
                    state="completed" if len(epochs) == length and state == "running" else state,
                    epochs=len(epochs),
                    samples=sum(epochs.values()),
                )
            )
        return progress

    def _append(self, path: Path, record: Frozen) -> None:
        until_written(partial(_append_line, path, record.model_dump_json()), path.parent, self.waits_for)

    def records(self) -> list[EpochRecord]:
        """The records of epochs, in the order in which they were appended."""
        return list(map(EpochRecord.model_validate_json, _lines(self._epochs)))

    def trial_records(self) -> list[TrialRecord]:
        """The reports on trials, in the order in which they were appended."""
        return list(map(TrialRecord.model_validate_json, _lines(self._trials)))


def _append_line(path: Path, line: str) -> None:
    """Append a line to a file, whole or not at all."""
    content = f"{line}\n".encode()
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
