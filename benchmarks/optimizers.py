"""What a step of the layer-wise optimizers costs beside torch's SGD, on a CPU, and what telemetry adds to a training.

python -m benchmarks.optimizers [--quick]

The parameters are those of ResNet-18 for CIFAR (11 million), with gradients, momentum and weight decay; one thread, as
a worker on a CPU has. All optimizers take a step in turn, round after round, and times are CPU time of the thread: what
else runs on the machine takes caches and memory bandwidth, but no time. A ratio is that of the medians over the rounds;
its denominator is the fastest of torch's three ways to take an SGD step. Adam and torch's other ways are printed for
orientation. The telemetry's share is that of `benchmarks.telemetry`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.telemetry import telemetry_overhead
from workers.models.build import build_model
from workers.optimizers.lamb import Lamb
from workers.optimizers.lars import Lars
from workers.optimizers.tvlars import Tvlars

WARM_UP = 5  # rounds
WAYS: dict[str, Any] = {"": {"foreach": False}, " foreach": {"foreach": True}, " fused": {"fused": True}}
SGD: dict[str, Callable[..., Any]] = {f"sgd{way}": partial(torch.optim.SGD, momentum=0.9, **WAYS[way]) for way in WAYS}
ADAM: dict[str, Callable[..., Any]] = {f"adam{way}": partial(torch.optim.AdamW, **WAYS[way]) for way in WAYS}
LAYERWISE: dict[str, Callable[..., Any]] = {"lars": Lars, "lamb": Lamb, "tvlars": Tvlars}


def parameters_with_gradients() -> list[nn.Parameter]:
    """The parameters of ResNet-18 for CIFAR, each with a gradient drawn at random."""
    model = build_model("resnet18-cifar", classes=10, channels=3, image_size=32, seed=0)
    generator = torch.Generator().manual_seed(0)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = 0.01 * torch.randn(parameter.shape, generator=generator)
    return parameters


def step_seconds(rounds: int) -> dict[str, float]:
    """The seconds of one step of each optimizer by its name, the median over so many rounds."""
    optimizers = {
        name: build(parameters_with_gradients(), lr=1e-6, weight_decay=5e-4)
        for name, build in (SGD | ADAM | LAYERWISE).items()
    }
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(WARM_UP + rounds):
        for name, optimizer in optimizers.items():
            began = time.thread_time()
            optimizer.step()
            times[name].append(time.thread_time() - began)
    return {name: statistics.median(seconds[WARM_UP:]) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizers", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="30 rounds instead of 200")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = step_seconds(30 if options.quick else 200)
    best = min(seconds[name] for name in SGD)
    for name, median in seconds.items():
        print(f"{name:14} {1e3 * median:7.2f} ms {median / best:6.2f}", flush=True)
    ratios = {name: round(seconds[name] / best, 3) for name in LAYERWISE}
    overhead = round(telemetry_overhead(quick=options.quick), 4)
    print(json.dumps({"step_ratio": ratios, "telemetry_overhead": overhead}))


if __name__ == "__main__":
    main()
