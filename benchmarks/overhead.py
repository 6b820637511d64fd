"""What the engine costs: an STPT training over a bare PyTorch loop with the same iterations and evaluations.

    python -m benchmarks.overhead [--quick] [--data DIR]

Two processes over gloo, one thread each, both ways, in turn. The bare loop trains the same branches side by side, the
same Main-train by DistributedDataParallel, at the same learning rates, and evaluates as many samples; it selects
nothing, copies no state, writes no checkpoint and takes no record. A training has three epochs of 20 s and more on two
cores. The ratio is of the medians over the rounds.
"""

import argparse
import json
import statistics
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from benchmarks.trainings import subset
from service.algorithms.epoch_plan import iterations_per_epoch
from service.algorithms.lr_schedules import epoch_lr_factors
from service.spec.job import JobSpec
from service.spec.methods.stpt import StptMethod
from service.wire.worker import EpochRecord
from workers.datasets.load import Data, Split, load_data
from workers.engine.groups import Workers
from workers.models.build import build_model
from workers.records_file import RecordsFile
from workers.trainings import train_job

WORLD = 2
EPOCHS = 3
TRAIN_SAMPLES = 1600  # 20 s and more on the fastest cores
CPU = torch.device("cpu")
SPEC: dict[str, Any] = {
    "model": "resnet18-cifar",
    "dataset": "fashion-mnist",
    "epochs": EPOCHS,
    "workers": WORLD,
    "global_batch_size": 64,
    "lr_set": {"factors": [2.0, 1.0, 0.5, 0.25]},
    "initial_learning_rate": 0.02,
    "methods": [{"name": "stpt", "guards": {"extend": False, "skip_dead": False, "rollback": False}}],
}


def engine(spec: JobSpec, data: Data, workers: Workers, folder: Path) -> tuple[float, list[EpochRecord]]:
    """Train `spec` by the engine. Returns the seconds from building the model to the last checkpoint, and the records
    of its epochs."""
    recorder = RecordsFile(folder) if workers.rank == 0 else None
    dist.barrier()
    began = time.perf_counter()
    records = list(train_job(spec, data, workers, points=(), trials=(), attempt=1, folder=folder, recorder=recorder))
    dist.barrier()
    return time.perf_counter() - began, records


def bare(spec: JobSpec, data: Data, rank: int, records: list[EpochRecord]) -> float:
    """Train by a bare PyTorch loop that does the work that `records` tell of, and nothing but it. Returns the seconds
    it took."""
    [method] = spec.methods_of(StptMethod)
    plan = method.epoch_plan(iterations_per_epoch(spec, len(data.train)))
    train, labels = pixels(data.train), data.train.labels[data.train.rows]
    splits = [(pixels(split), split.labels[split.rows]) for split in (data.validation, data.test)]
    dist.barrier()
    began = time.perf_counter()
    model = build_model(
        spec.model, classes=data.classes, channels=data.channels, image_size=data.image_size, seed=spec.seed
    )
    replica = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batch, alpha = spec.global_batch_size, plan.pretrain_iterations

    def step(network: nn.Module, indices: Tensor, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        # a branch takes its batch in shares, as the engine does: batch normalisation is to see as many samples
        shares = indices.split(batch // WORLD)
        for share in shares:
            (cross_entropy(network(train[share]), labels[share]) / len(shares)).backward()
        optimizer.step()

    @torch.no_grad()
    def evaluate(images: Tensor, answers: Tensor) -> float:
        model.eval()
        right = sum(
            int((model(part).argmax(1) == answer).sum())
            for part, answer in zip(images.split(500), answers.split(500), strict=True)
        )
        model.train()
        return right / len(images)

    for record in records:
        order = torch.randperm(len(train))
        factors = epoch_lr_factors(spec.lr_schedule, epoch=record.epoch, epochs=EPOCHS, iterations=plan.iterations)
        for branch in record.branches[rank::WORLD]:  # this process'
            for iteration in range(alpha):
                rate = branch.learning_rate * factors[iteration]
                step(model, order[iteration * batch : (iteration + 1) * batch], rate)
            evaluate(*splits[0])
        for iteration in range(alpha, plan.iterations):
            first = iteration * batch + rank * batch // WORLD
            step(replica, order[first : first + batch // WORLD], record.learning_rate * factors[iteration])
        for images, answers in splits:
            evaluate(images[rank::WORLD], answers[rank::WORLD])
    dist.barrier()
    return time.perf_counter() - began


def pixels(split: Split) -> Tensor:
    images, _ = split.batch(torch.arange(len(split)), CPU)
    return images.contiguous()


def process(rank: int, init: str, data_dir: Path, samples: int, rounds: int, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init, rank=rank, world_size=WORLD)
    spec = JobSpec.model_validate(SPEC)
    data = subset(load_data(spec.dataset, data_dir, CPU), samples, 200, 200)
    workers, times = Workers(CPU), []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            ours, records = engine(spec, data, workers, Path(folder))
        times.append((ours, bare(spec, data, rank, records)))
        if rank == 0:
            print(f"engine {times[-1][0]:.1f} s, bare loop {times[-1][1]:.1f} s", flush=True)
    if rank == 0:
        results.put(times)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument("--quick", action="store_true", help="2 rounds instead of 6")
    options = parser.parse_args()
    context = get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"file://{folder}/store", options.data, TRAIN_SAMPLES, 2 if options.quick else 6, results)
        spawn(process, arguments, nprocs=WORLD)
    times = results.get()
    ours, bare_loop = (statistics.median(column) for column in zip(*times, strict=True))
    print(json.dumps({"ratio": round(ours / bare_loop, 4), "epoch_seconds": round(ours / EPOCHS, 1)}))


if __name__ == "__main__":
    main()
