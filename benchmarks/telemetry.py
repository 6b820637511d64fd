"""What telemetry of layers costs: training steps with it over steps without it.

    python -m benchmarks.telemetry [--quick]

ResNet-18 for CIFAR on random images by LARS, whose trust ratios are sampled too; one process, one thread. Every second
step is sampled, so that both kinds of step meet the same machine; a job samples every tenth. The epoch's end, when all
samples become a record, is shared out over its steps. The overhead is the median of the rounds'; the last line is one
JSON object.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch

from service.spec.job import JobSpec
from workers.build import build_trainer
from workers.datasets.load import Data, Split
from workers.engine.groups import Workers

EVERY = 10  # steps of a job from one sample to the next
BATCH = 16
STEPS = 12  # of a round, half of them sampled
CPU = torch.device("cpu")
SPEC: dict[str, Any] = {
    "model": "resnet18-cifar",
    "optimizer": "lars",
    "dataset": "cifar10",
    "epochs": 1,
    "global_batch_size": BATCH,
    "telemetry": {"every": 2},
}


def telemetry_overhead(*, quick: bool = False) -> float:
    """The share by which telemetry every 10 steps makes a training longer: 0.01 is 1 %."""
    overheads = []
    trainer = build_trainer(JobSpec.model_validate(SPEC), _random_data(), Workers(CPU))
    if trainer.telemetry is None:
        raise ValueError("SPEC asks for no telemetry")
    trainer.train(1, range(2), [0.01] * 2, trainer.workers.world, 1)  # memory is allocated, kernels are chosen
    for number in range(2 if quick else 8):
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for iteration in range(STEPS):
            began = time.perf_counter()
            trainer.train(1, range(iteration, iteration + 1), [0.01], trainer.workers.world, 1)
            seconds[iteration % 2 == 0].append(time.perf_counter() - began)
        began = time.perf_counter()
        trainer.telemetry.record(1)
        share = (time.perf_counter() - began) / len(seconds[True])
        sampled, plain = statistics.median(seconds[True]), statistics.median(seconds[False])
        overheads.append((sampled - plain + share) / (EVERY * plain))
        print(f"round {number + 1}: a step {plain:.3f} s, sampled {sampled:.3f} s, overhead {overheads[-1]:.4f}")
    return statistics.median(overheads)


def _random_data() -> Data:
    """A dataset of random images of CIFAR's size, as many as one round needs; its validation and test images are not
    looked at."""
    samples = BATCH * STEPS
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (samples,), generator=generator)
    half = torch.full((3, 1, 1), 0.5)
    split = Split(images, labels, torch.arange(samples), half, half)
    return Data(split, split, split, classes=10, channels=3, image_size=32)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 rounds instead of 8")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({"telemetry_overhead": round(telemetry_overhead(quick=options.quick), 4)}))


if __name__ == "__main__":
    main()
