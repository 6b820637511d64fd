"""Every training of a job that is no search, one after another, each epoch checkpointed and reported. Without Ray.

    python -m workers.train SPEC [--data DIR] [--checkpoints DIR]           one process
    torchrun --nproc-per-node 2 -m workers.train SPEC                       two

SPEC is a job spec as YAML or JSON. Each epoch is a line; the last line is one JSON object. Run again, it goes on from
the newest checkpoint in DIR.
"""

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

from service.algorithms.candidates import trials_of
from service.algorithms.epoch_plan import samples_per_epoch
from service.algorithms.search_space import budget_samples, stretched_epochs
from service.errors import Diverged
from service.spec.job import JobSpec
from service.spec.methods import STRETCHED, StptMethod, TrainedMethod
from service.spec.types import Frozen
from service.validation.door import parse_spec
from service.validation.means import Means, check_means
from service.wire.worker import CheckpointRef, EpochRecord, ResumePoint, TrialProgress, TrialRecord
from workers import checkpoint
from workers.checkpoint import Position
from workers.datasets.load import Data, load_data
from workers.engine.groups import Workers
from workers.methods.base import Training
from workers.methods.scheduled import make_training


class Recorder(Protocol):
    """Where records go: workers.report.Reporter."""

    def trial(self, record: TrialRecord) -> None: ...
    def epoch(self, record: EpochRecord) -> None: ...
    def waiting(self) -> Sequence[object]: ...
    def flush(self) -> None: ...


def train_job(
    spec: JobSpec,
    data: Data,
    workers: Workers,
    *,
    points: Sequence[ResumePoint],
    trials: Sequence[TrialProgress],
    attempt: int,
    folder: Path,
    recorder: Recorder | None,
) -> Iterator[EpochRecord]:
    """All trials of all methods that do not search, but for those of `trials` that have ended; the others go on from
    `points`, newest first.

    Every worker of the world runs this; the one with rank 0, and only it, has a recorder. A trial that diverges ends
    alone, unless it is all that the job has: then this raises Diverged.
    """
    stpt_samples = {trial.seed: trial.samples for trial in trials if trial.method == "stpt"}
    samples = samples_per_epoch(spec, len(data.train))
    for method, trial, seed in trainings_left(spec, trials):
        its_spec = spec.model_copy(update={"seed": seed})
        record = TrialRecord(method=method.name, trial=trial, seed=seed, epochs=spec.epochs, state="running")
        if isinstance(method, STRETCHED):
            budget = budget_samples(spec, samples, stpt_samples.get(seed))
            its_spec = its_spec.model_copy(update={"epochs": stretched_epochs(spec, samples, budget)})
            record = record.model_copy(update={"epochs": its_spec.epochs})
            if recorder is not None:
                recorder.trial(record)
        training = make_training(method, trial, its_spec, data, workers)
        its_points = [point for point in points if (point.method, point.trial) == (method.name, trial)]
        try:
            yield from run(training, its_points, attempt, folder / f"{method.name}-{trial}", recorder)
        except Diverged as error:
            if len(spec.methods) == spec.seeds == trials_of(spec, method) == 1:
                raise
            if recorder is not None:
                recorder.trial(record.model_copy(update={"state": "diverged", "message": error.detail}))
        if isinstance(method, StptMethod):
            stpt_samples[seed] = training.position.samples


def trainings_left(spec: JobSpec, trials: Sequence[TrialProgress]) -> list[tuple[TrainedMethod, int, int]]:
    """(method, trial, seed) of every training that is no search and has not ended, in their order."""
    ended = {(trial.method, trial.trial) for trial in trials if trial.state not in ("pending", "running")}
    return [
        (method, trial, spec.seed + (trial - 1) // trials_of(spec, method))
        for method in spec.methods
        if isinstance(method, TrainedMethod)
        for trial in range(1, spec.seeds * trials_of(spec, method) + 1)
        if (method.name, trial) not in ended
    ]


def run(
    training: Training, points: Sequence[ResumePoint], attempt: int, folder: Path, recorder: Recorder | None
) -> Iterator[EpochRecord]:
    """Resume from the newest usable checkpoint in `folder`, then yield each epoch's record as it is handed over."""
    usable = resume(training, folder, points)
    for record in training.epochs():
        if recorder is not None and record.val_loss is None:  # it has diverged: nothing is to go on from here
            recorder.epoch(record)
        elif recorder is not None:
            name = f"epoch-{record.epoch:06d}-a{attempt}"
            ref = checkpoint.save(folder, name, training.trainer.tensors, training.position)
            recorder.epoch(record.model_copy(update={"checkpoint": ref}))
            usable.append(_point(record, ref))
            if not recorder.waiting():  # else SQL still counts on older ones
                checkpoint.prune(folder, checkpoint.to_keep(usable))
        yield record
    if recorder is not None:
        recorder.flush()


@torch.no_grad()
def resume(training: Training, folder: Path, points: Sequence[ResumePoint]) -> list[ResumePoint]:
    """Bring every worker to the newest usable point, or leave it at the start; the points up to there.

    Rank 0 reads the files and broadcasts, so that all workers go on from one and the same state.
    """
    trainer, world = training.trainer, training.world
    position = training.position
    if trainer.workers.rank == 0 and (found := checkpoint.load_newest(folder, points, trainer.tensors)) is not None:
        tensors, position = found
        for name, tensor in trainer.tensors.items():
            tensor.copy_(tensors[name])
    text = world.broadcast_text(position.model_dump_json(), 0, trainer.workers.device)
    training.go_on_from(Position.model_validate_json(text))
    if training.position.epochs:  # else all have built the same from the seed
        trainer.state.load(world.broadcast_(trainer.state.save(trainer.state.empty()), 0))
    return [point for point in points if point.epoch <= training.position.epochs]


def _point(record: EpochRecord, ref: CheckpointRef) -> ResumePoint:
    return ResumePoint(
        method=record.method,
        trial=record.trial,
        epoch=record.epoch,
        val_accuracy=record.val_accuracy,
        checkpoint=ref,
    )


# --- the command -----------------------------------------------------------------------------------


class RecordsFile:
    """A recorder without a service: one line of JSON a report, in files beside the checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._epochs, self._trials = folder / "records.jsonl", folder / "trials.jsonl"

    def trial(self, record: TrialRecord) -> None:
        _append(self._trials, record)

    def epoch(self, record: EpochRecord) -> None:
        _append(self._epochs, record)

    def waiting(self) -> Sequence[object]:
        return ()

    def flush(self) -> None:
        pass

    def points(self) -> list[ResumePoint]:
        """Newest first."""
        return [_point(record, record.checkpoint) for record in reversed(self.records()) if record.checkpoint]

    def trials(self, spec: JobSpec) -> list[TrialProgress]:
        """What has begun, with what it took."""
        told = {(record.method, record.trial): record for record in self.trial_records()}
        samples: dict[tuple[str, int], dict[int, int]] = {}
        for record in self.records():  # a later record of an epoch replaces an earlier one
            samples.setdefault((record.method, record.trial), {})[record.epoch] = record.samples
        per_seed: dict[str, int] = {method.name: trials_of(spec, method) for method in spec.methods}
        progress = []
        for (method, trial), epochs in samples.items():
            known = told.get((method, trial))
            length, state = (known.epochs, known.state) if known else (spec.epochs, "running")
            progress.append(
                TrialProgress(
                    method=method,
                    trial=trial,
                    key=None,
                    seed=spec.seed + (trial - 1) // per_seed[method],
                    config={},
                    state="completed" if len(epochs) == length and state == "running" else state,
                    epochs=len(epochs),
                    samples=sum(epochs.values()),
                )
            )
        return progress

    def records(self) -> list[EpochRecord]:
        """In the order in which they came."""
        return list(map(EpochRecord.model_validate_json, _lines(self._epochs)))

    def trial_records(self) -> list[TrialRecord]:
        """Likewise."""
        return list(map(TrialRecord.model_validate_json, _lines(self._trials)))


def _append(path: Path, record: Frozen) -> None:
    with path.open("a") as file:
        file.write(record.model_dump_json() + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main(arguments: Sequence[str]) -> None:
    import yaml  # only here: in a job, specs are JSON

    parser = argparse.ArgumentParser(prog="python -m workers.train", description="Train a job spec without a service.")
    parser.add_argument("spec", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("checkpoints"), help="folder to write to and resume from"
    )
    options = parser.parse_args(arguments)
    document = yaml.safe_load(options.spec.read_text())
    world_size, on_gpu = int(os.environ.get("WORLD_SIZE", 1)), torch.cuda.is_available()
    spec = parse_spec(json.dumps(document | {"workers": world_size}).encode())
    check_means(spec, Means(options.data))
    use_gpu = spec.device == "cuda" or (spec.device == "auto" and on_gpu)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(device)
    if world_size > 1:
        dist.init_process_group("nccl" if use_gpu else "gloo")
    workers = Workers(device)
    options.checkpoints.mkdir(parents=True, exist_ok=True)
    records = RecordsFile(options.checkpoints)
    began, last = time.perf_counter(), None
    for last in train_job(
        spec,
        load_data(spec.dataset, options.data, device),
        workers,
        points=records.points(),
        trials=records.trials(spec),
        attempt=1,
        folder=options.checkpoints,
        recorder=records if workers.rank == 0 else None,
    ):
        if workers.rank == 0:
            val_loss = math.nan if last.val_loss is None else last.val_loss
            print(
                f"{last.method} {last.trial}, epoch {last.epoch}: learning rate {last.learning_rate:.4g}, "
                f"val_loss {val_loss:.4f}, val_accuracy {last.val_accuracy:.4f}, "
                f"test_accuracy {last.test_accuracy:.4f}, {last.seconds:.1f} s",
                flush=True,
            )
    if workers.rank == 0:
        seconds = round(time.perf_counter() - began, 1)
        print(json.dumps({"test_accuracy": last and last.test_accuracy, "seconds": seconds, "device": str(device)}))
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    main(sys.argv[1:])
