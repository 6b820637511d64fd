"""Worlds of 1 to 8 real processes that talk over gloo, and small trainings to run there.

A test module takes them with `pytest_plugins = ["tests.unit.workers.ranks"]`.

    ranks   `ranks(n, function, *arguments)`: what `function(*arguments)` returned on each of n ranks of a fresh world

The function is found by its name, so it stands at the top of a module; what it patches, it puts back. The processes
live as long as the session, because `import torch` takes seconds; they are forked from a clean one that has done it.

PYTEST_DONT_REWRITE (test modules import it before pytest does)
"""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import nn

from service.algorithms.epoch_plan import iterations_per_epoch, samples_per_epoch
from service.spec.data import NamedDataset
from service.spec.job import JobSpec
from service.spec.methods.stpt import StptMethod
from tests.builders import spec_document
from workers.build import build_trainer
from workers.datasets.load import Data, load_data
from workers.engine.groups import Workers
from workers.engine.trainer import Trainer
from workers.methods.stpt import Stpt
from workers.models import build as models

torch.set_num_threads(1)  # in the tests' own process too: worlds share the machine's cores

CPU = torch.device("cpu")
SIZE = 8
PATIENCE_S = 280.0  # shared machines are slow at times; below the timeout in pyproject.toml


class Ranks:
    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count(1)
        self._processes: list[tuple[BaseProcess, Connection]] = []

    def __call__(self, world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        assert 1 <= world_size <= SIZE
        self._start(world_size)
        store = self._folder / f"world-{next(self._numbers)}"
        connections = [connection for _, connection in self._processes[:world_size]]
        for rank, connection in enumerate(connections):
            connection.send((function, arguments, rank, world_size, store))
        results: dict[int, Any] = {}
        while len(results) < world_size:
            ready = wait([connections[rank] for rank in range(world_size) if rank not in results], PATIENCE_S)
            if not ready:
                self.close()
                pytest.fail(f"ranks {sorted(set(range(world_size)) - set(results))} did not answer", pytrace=False)
            for connection in ready:
                rank = connections.index(connection)
                results[rank], failure = connection.recv()
                if failure:  # the first one; the others fail in their collectives
                    self.close()
                    pytest.fail(f"rank {rank} of {world_size}:\n{failure}", pytrace=False)
        return [results[rank] for rank in range(world_size)]

    def _start(self, world_size: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "torchvision"])  # each of eight would take seconds for it
        for _ in range(len(self._processes), world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._processes.append((process, ours))

    def close(self) -> None:
        for process, connection in self._processes:
            connection.close()
            process.terminate()
            process.join()
        self._processes = []


def _serve(connection: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    while True:
        try:
            function, arguments, rank, world_size, store = connection.recv()
        except EOFError:
            return
        try:
            connection.send((_in_a_world(function, arguments, rank, world_size, store), None))
        except BaseException:
            connection.send((None, traceback.format_exc()))


def _in_a_world(function: Callable[..., Any], arguments: Any, rank: int, world_size: int, store: Path) -> Any:
    patience = timedelta(seconds=PATIENCE_S)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world_size, timeout=patience)
    try:
        return function(*arguments)
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    ranks = Ranks(tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


# --- small trainings -------------------------------------------------------------------------------


def _with_batch_norm(classes: int, channels: int, _: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def _plain(classes: int, channels: int, _: int) -> nn.Module:
    """A net like LeNet-5 without batch normalisation, with a quarter of its work."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def _with_dropout(classes: int, channels: int, image_size: int) -> nn.Module:
    pixels = channels * image_size**2
    return nn.Sequential(
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(pixels, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, classes)
    )


NETS = {
    "lenet5": models.BUILDERS["lenet5"],
    "plain": _plain,
    "batch-norm": _with_batch_norm,
    "dropout": _with_dropout,
}


@cache
def digits(train_samples: int | None = None) -> Data:
    """1293 training images, or the first so many of them, 144 validation and 360 test images."""
    return load_data(NamedDataset(name="digits", train_samples=train_samples), Path(), CPU)


def make_trainer(net: str, **changes: Any) -> Trainer:
    """A trainer on digits in the world at hand: the small spec of tests/builders.py with these changes; its epochs are
    those of the spec's stpt."""
    workers = Workers(CPU)
    spec = JobSpec.model_validate(spec_document(workers=workers.size, **changes))
    with patch.dict(models.BUILDERS, {spec.model: NETS[net]}):
        return trainer_of(spec, digits(spec.dataset.train_samples), workers)


def trainer_of(spec: JobSpec, data: Data, workers: Workers) -> Trainer:
    """A trainer whose epochs are those of the spec's stpt, if it has one."""
    iterations = iterations_per_epoch(spec, len(data.train))
    for method in spec.methods_of(StptMethod):
        iterations = method.training_shares(spec, samples_per_epoch(spec, len(data.train))).iterations
    return build_trainer(spec, data, workers, iterations=iterations)


def make_stpt(net: str, **changes: Any) -> Stpt:
    return stpt_of(make_trainer(net, **changes))


def stpt_of(trainer: Trainer) -> Stpt:
    """The training of the stpt in the trainer's spec."""
    [method] = trainer.spec.methods_of(StptMethod)
    return Stpt(method, trainer)
