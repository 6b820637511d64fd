"""Trains one trial of a search, in a process of its own: what a job's workers would train, microbatch by microbatch."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from torch import Tensor

from service.algorithms.search_space import search_space
from service.errors import Diverged
from service.wire.worker import EpochRecord
from workers import checkpoint
from workers.checkpoint import Position
from workers.datasets.load import Data
from workers.disk import until_written
from workers.engine import progress
from workers.engine.groups import Workers
from workers.methods import make_trial
from workers.methods.base import Training
from workers.tune.heartbeats import telling
from workers.tune.search import Search
from workers.tune.searchers import METRIC, TIME, hyperparameters

PROGRESS = "progress"  # the folder with the trials' numbers, in that of the job's searches
Load = Callable[[torch.device], Data]


def trainable_of(search: Search, load: Load, folder: Path) -> Callable[[dict[str, Any]], None]:
    """The function of a trial's config that Tune runs for each trial of the search; `folder` is that of all searches of
    the job.

    `load` reads the dataset in the process of the trial, which keeps it for trials that follow.
    """
    spec, method, seed, epochs = search.spec, search.method, search.seed, search.epochs
    space = search_space(spec, method)

    def train(config: dict[str, Any]) -> None:
        """Train a trial to its end, or until Tune stops it. What it raises ends it as failed."""
        try:
            chosen = method.trial_spec(spec, hyperparameters(space, config), seed=seed, epochs=epochs)
            device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
            with telling(folder / PROGRESS / tune.get_context().get_trial_id()):
                data = _data(str(folder), load, device)
                _train(make_trial(method, chosen, data, Workers(device)))
        except Exception as error:
            # not raised: Tune would try again what would fail again
            tune.report(_failure(error))

    return train


def _train(training: Training) -> None:
    """Train from the trial's checkpoint, where Tune has one, to the end. Each epoch is reported with a new
    checkpoint."""
    key = tune.get_context().get_trial_id()
    tensors = training.trainer.tensors
    source: tuple[str | None, int] = (None, 0)  # the trial and the epoch that the next record goes on from
    if (start := tune.get_checkpoint()) is not None:
        with start.as_directory() as folder:
            training.go_on_from(checkpoint.load_into(Path(folder), tensors))
        source = training.position.key, training.position.epochs
    for record in training.epochs():
        training.position = training.position.model_copy(update={"key": key})
        report = _report(record, *source)
        until_written(partial(_hand_over, report, tensors, training.position), Path(tempfile.gettempdir()), _waits)
        source = (None, 0)


def _hand_over(report: dict[str, Any], tensors: Mapping[str, Tensor], position: Position) -> None:
    """Report an epoch with the checkpoint behind it, which Tune copies to where it keeps them."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), "state", tensors, position)
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(Path(folder, "state"))))


def _waits(reason: str | None) -> None:
    """Waiting for a disk is no hang; the driver meets the same full disk, and tells of it."""
    progress.advance()


def _report(record: EpochRecord, source: str | None, source_epoch: int) -> dict[str, Any]:
    """The report of an epoch as the driver gets it (workers.tune.search.Search.epoch)."""
    diverged = record.val_loss is None
    return {
        METRIC: record.val_accuracy,
        TIME: record.epoch,
        "samples": record.samples,
        "record": record.model_dump_json(),
        "source": source,
        "source_epoch": source_epoch,
        "state": "diverged" if diverged else "",
        "message": f"epoch {record.epoch}: the loss became non-finite" if diverged else "",
    }


def _failure(error: Exception) -> dict[str, Any]:
    """The report of a trial that raised an error as the driver gets it."""
    code = "out of memory" if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
    return {
        METRIC: 0.0,
        TIME: 0,
        "samples": 0,
        "record": "",
        "source": None,
        "source_epoch": 0,
        "state": "diverged" if isinstance(error, Diverged) else "failed",
        "message": f"{code}: {error}"[:4000],
    }


_loaded: dict[str, Data] = {}  # in the process of a trial, for those that come after it


def _data(dataset: str, load: Load, device: torch.device) -> Data:
    if dataset not in _loaded:
        _loaded[dataset] = load(device)
    return _loaded[dataset]
