"""Runs trainings without Ray or a service, many at a time: one process a core, one thread each."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from service.algorithms.candidates import trials_of
from service.algorithms.epoch_plan import samples_per_epoch
from service.errors import Diverged
from service.spec.data import Dataset
from service.spec.job import JobSpec
from service.wire.worker import EpochRecord
from workers.datasets.load import Data, Split, load_data
from workers.engine.groups import Workers
from workers.methods import make_training
from workers.trainings import spec_of_training

SHOWN_TEST_SAMPLES = 500  # evaluated after each epoch; the whole test split at the end


@dataclass(frozen=True)
class Task:
    """One trial of the only method of a spec (given as a document), on the first `train_samples` of its training
    split."""

    key: tuple[Any, ...]
    spec: dict[str, Any]
    trial: int
    train_samples: int
    val_samples: int


@dataclass(frozen=True)
class Result:
    """The result of a training: the test accuracy of its last weights, its cost in training samples, and the records of
    its epochs. One that diverged is charged for its whole length, and `diverged` says why it ended."""

    key: tuple[Any, ...]
    test_accuracy: float
    samples: int
    seconds: float
    records: Sequence[EpochRecord]
    diverged: str | None


def tasks_of(key: tuple[Any, ...], spec: dict[str, Any], *, train_samples: int, val_samples: int) -> list[Task]:
    """The tasks of a spec, one for each trial of its method; the number of the trial is put behind the key."""
    job = JobSpec.model_validate(spec)
    [method] = job.methods
    return [
        Task((*key, trial), spec, trial, train_samples, val_samples) for trial in range(1, trials_of(job, method) + 1)
    ]


def run_all(tasks: Iterable[Task], data_dir: Path) -> Iterator[Result]:
    """Run every task, as many at a time as there are cores, and yield each result as it comes. Progress goes to
    standard error."""
    waiting = list(tasks)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
        futures = [pool.submit(run, task, data_dir) for task in waiting]
        for number, future in enumerate(as_completed(futures), start=1):
            result = future.result()
            yield result
            what = " ".join(str(part) for part in result.key)
            print(f"{number} of {len(waiting)} trainings: {what}", file=sys.stderr, flush=True)


def run(task: Task, data_dir: Path) -> Result:
    """Run one task on one thread of this process, within the budget of its spec if it has one. Raises TypeError where
    its method is a search."""
    torch.set_num_threads(1)
    spec = JobSpec.model_validate(task.spec)
    whole = _data(spec.dataset.model_dump_json(), data_dir)
    [method], records, diverged = spec.methods, list[EpochRecord](), None
    if method.is_search:
        raise TypeError(f"{method.name} is a search")
    data = subset(whole, task.train_samples, task.val_samples, SHOWN_TEST_SAMPLES)
    spec = spec_of_training(spec, method, spec.seed, samples_per_epoch(spec, len(data.train)), None)
    training = make_training(method, task.trial, spec, data, Workers(torch.device("cpu")))
    trainer = training.trainer
    began = time.perf_counter()
    try:
        records.extend(training.epochs())
    except Diverged as error:
        diverged = error.detail
    seconds = time.perf_counter() - began
    accuracy = trainer.evaluate(whole.test, training.world).accuracy
    # a training that ended early is not cheaper for it: it would have been paid for
    planned = trainer.iterations * spec.global_batch_size * (spec.epochs - len(records))
    return Result(task.key, accuracy, sum(r.samples for r in records) + planned, seconds, records, diverged)


@cache
def _data(dataset: str, data_dir: Path) -> Data:
    return load_data(TypeAdapter[Dataset](Dataset).validate_json(dataset), data_dir, torch.device("cpu"))


def subset(data: Data, train_samples: int, val_samples: int, test_samples: int) -> Data:
    """The dataset with so many samples of each split, drawn at random, always the same ones."""

    def some(split: Split, samples: int) -> Split:
        chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:samples].sort().values
        return replace(split, rows=split.rows[chosen])

    return replace(
        data,
        train=some(data.train, train_samples),
        validation=some(data.validation, val_samples),
        test=some(data.test, test_samples),
    )
