"""Runs every training of a job that is no search, one after another, each epoch checkpointed and reported; needs no
Ray."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from service.algorithms.candidates import trials_of
from service.algorithms.epoch_plan import samples_per_epoch
from service.algorithms.search_space import budget_samples
from service.errors import Diverged
from service.spec.budget import Budget
from service.spec.job import JobSpec
from service.spec.methods.base import MethodSpec
from service.wire.checkpoint import folder_of
from service.wire.worker import CheckpointRef, EpochRecord, ResumePoint, TrialProgress, TrialRecord
from workers import checkpoint
from workers.checkpoint import Position
from workers.datasets.load import Data
from workers.disk import until_written
from workers.engine.groups import Workers
from workers.methods import make_training
from workers.methods.base import Training


class Recorder(Protocol):
    """Takes the reports of trainings: a workers.report.Reporter, or a workers.records_file.RecordsFile."""

    @property
    def pause_asked(self) -> bool:
        """Whether the job is to pause behind the newest report."""

    def trial(self, record: TrialRecord) -> None:
        """Hand over the beginning, a change, or the end of a trial."""

    def epoch(self, record: EpochRecord) -> None:
        """Hand over the record of an epoch."""

    def waiting_epochs(self) -> int:
        """How many of the epochs that were handed over, the newest ones, have not reached their end yet."""

    def waits_for(self, reason: str | None) -> None:
        """Tell what keeps the training from getting on, in words; None: nothing any more."""

    def flush(self) -> None:
        """Hand over all reports that wait."""


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
    """Train all trials of all methods that do not search, but for those of `trials` that have ended, and yield the
    record of each epoch. Trials go on from `points`, newest first.

    Every worker of the world runs this; the one with rank 0, and only it, has a recorder. A trial that diverges ends
    alone, unless it is all that the job has: then this raises Diverged.
    """
    taken = {trial.seed: trial.samples for trial in trials if trial.label == spec.measuring_run}  # by that run
    configs = {(trial.label, trial.trial): trial.config for trial in trials}
    samples = samples_per_epoch(spec, len(data.train))
    for method, trial, seed in trainings_left(spec, trials):
        its_spec = spec_of_training(spec, method, seed, samples, taken.get(seed))
        config = configs.get((method.label, trial), {})
        record = TrialRecord(
            label=method.label, trial=trial, seed=seed, config=config, epochs=its_spec.epochs, state="running"
        )
        if method.holds_budget(spec) and recorder is not None:
            recorder.trial(record)
        training = make_training(method, trial, its_spec, data, workers)
        its_points = [point for point in points if (point.label, point.trial) == (method.label, trial)]
        try:
            yield from run(training, its_points, attempt, folder_of(folder, method.label, trial), recorder, record)
        except Diverged as error:
            if len(spec.methods) == spec.seeds == trials_of(spec, method) == 1:
                raise
            if recorder is not None:
                told = {"config": training.config or config, "state": "diverged", "message": error.detail}
                recorder.trial(record.model_copy(update=told))
        if method.label == spec.measuring_run:
            taken[seed] = training.position.samples


def is_to_pause(workers: Workers, recorder: Recorder | None) -> bool:
    """Whether the job is to pause behind the epoch that was just recorded: what the recorder of the worker with rank 0
    says, on every worker alike."""
    asked = torch.tensor([recorder is not None and recorder.pause_asked], dtype=torch.uint8, device=workers.device)
    return bool(workers.world.broadcast_(asked, 0).item())


def spec_of_training(spec: JobSpec, method: MethodSpec, seed: int, samples: int, taken: int | None) -> JobSpec:
    """The spec of one training of the method: with its seed, and where the job's budget holds for it, with that in
    samples and with as many epochs as it has room for. `samples` are the training samples of an epoch of the data,
    `taken` those that the run took, with this seed, which the budget is relative to."""
    spec_of_seed = spec.model_copy(update={"seed": seed})
    if not method.holds_budget(spec):
        return spec_of_seed
    budget = budget_samples(spec, samples, taken)
    epochs = method.training_epochs(spec_of_seed, samples, budget)
    return spec_of_seed.model_copy(
        update={"epochs": epochs, "budget": None if budget is None else Budget(samples=budget)}
    )


def trainings_left(spec: JobSpec, trials: Sequence[TrialProgress]) -> list[tuple[MethodSpec, int, int]]:
    """The trainings that are no search and have not ended, as (method, trial, seed), in their order: first those of the
    run that budgets are relative to, then as the spec has them."""
    ended = {(trial.label, trial.trial) for trial in trials if trial.state not in ("pending", "running")}
    return [
        (method, trial, spec.seed + (trial - 1) // trials_of(spec, method))
        for method in sorted(spec.methods, key=lambda method: method.label != spec.measuring_run)
        if not method.is_search
        for trial in range(1, spec.seeds * trials_of(spec, method) + 1)
        if (method.label, trial) not in ended
    ]


def run(
    training: Training,
    points: Sequence[ResumePoint],
    attempt: int,
    folder: Path,
    recorder: Recorder | None,
    trial: TrialRecord | None = None,
) -> Iterator[EpochRecord]:
    """Resume a training from the newest usable checkpoint in `folder`, then yield each epoch's record as it is handed
    over.

    `trial` is the training as it has been reported; it is reported again when it has chosen hyperparameters, before the
    epoch that is the first to be trained by them.
    """
    usable = resume(training, folder, points)
    for record in training.epochs():
        if recorder is not None and trial is not None and training.config not in ({}, trial.config):
            trial = trial.model_copy(update={"config": training.config})
            recorder.trial(trial)
        if recorder is not None and record.val_loss is None:  # it has diverged: nothing is to go on from here
            recorder.epoch(record)
        elif recorder is not None:
            name = f"epoch-{record.epoch:06d}-a{attempt}"
            save = partial(checkpoint.save, folder, name, training.trainer.tensors, training.position)
            ref = until_written(save, folder, recorder.waits_for)
            recorder.epoch(record.model_copy(update={"checkpoint": ref}))
            usable.append(resume_point(record, ref))
            _prune(folder, usable, recorder.waiting_epochs())
        yield record
    if recorder is not None:
        recorder.flush()
        _prune(folder, usable, 0)


def _prune(folder: Path, usable: Sequence[ResumePoint], waiting: int) -> None:
    """Delete the checkpoints in `folder` that nobody will go on from. The newest `waiting` points are not recorded yet:
    until they are, SQL counts on those before them."""
    recorded = usable[: max(0, len(usable) - waiting)]
    if recorded:
        waiting_for = {point.checkpoint.name for point in usable[len(recorded) :]}
        checkpoint.prune(folder, checkpoint.to_keep(recorded) | waiting_for)


@torch.no_grad()
def resume(training: Training, folder: Path, points: Sequence[ResumePoint]) -> list[ResumePoint]:
    """Bring every worker to the newest usable point, or leave it at the start; return the points up to there.

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


def resume_point(record: EpochRecord, ref: CheckpointRef) -> ResumePoint:
    """The point from which a training may go on: behind the recorded epoch, from the checkpoint `ref`."""
    return ResumePoint(
        label=record.label,
        trial=record.trial,
        epoch=record.epoch,
        val_accuracy=record.val_accuracy,
        checkpoint=ref,
    )
