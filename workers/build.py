"""Builds a job's Trainer from its spec: model, task and optimizer are built here and handed to the engine."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from service.algorithms.epoch_plan import iterations_per_epoch
from service.spec.job import JobSpec
from workers.datasets.load import Data
from workers.engine.groups import Workers
from workers.engine.trainer import Trainer
from workers.models.build import build_model
from workers.optimizers.build import build_optimizer
from workers.tasks.build import build_task


def build_trainer(
    spec: JobSpec,
    data: Data,
    workers: Workers,
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    *,
    iterations: int | None = None,
) -> Trainer:
    """The trainer of a job on this worker, its model as the seed of `spec` makes it, before its first step.

    `make_optimizer` makes another optimizer than the spec's. `iterations` is the length of an epoch; None means as many
    as the data have full batches for.
    """
    iterations = iterations_per_epoch(spec, len(data.train)) if iterations is None else iterations
    task = build_task(spec, data, workers.device)
    classifier = build_model(
        spec.model, classes=data.classes, channels=data.channels, image_size=data.image_size, seed=spec.seed
    )
    model = task.prepared(classifier).to(workers.device)
    if workers.device.type == "cuda":
        model.to(memory_format=torch.channels_last)
    make = make_optimizer or partial(
        build_optimizer,
        spec.optimizer,
        learning_rate=spec.initial_learning_rate,
        iterations=iterations,
        global_batch_size=spec.global_batch_size,
    )
    return Trainer(
        spec, data, workers, model=model, task=task, optimizer=make(model.parameters()), iterations=iterations
    )
