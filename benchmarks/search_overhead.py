"""What Ray Tune costs: the wall time of a search over what its trials train, side by side.

    python -m benchmarks.search_overhead [--quick] [--data DIR]

Trials of 20 s and more, as many at a time as there are cores. The ratio is the wall time of the whole search, its
processes' start and the reading of data included, over the sum of its epochs' seconds divided by the slots. The last
line is one JSON object.
"""

import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray

from benchmarks.baselines import Remembering
from service.spec.job import JobSpec
from workers.datasets.load import load_data
from workers.tune.driver import run_searches

TRIALS = 8
SPEC: dict[str, Any] = {"model": "lenet5", "dataset": "mnist", "global_batch_size": 64}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument("--quick", action="store_true", help="trials of 3 epochs instead of 6")
    options = parser.parse_args()
    slots = os.cpu_count() or 1
    method = {"name": "random", "max_trials": TRIALS}
    spec = JobSpec.model_validate(SPEC | {"epochs": 3 if options.quick else 6, "methods": [method]})
    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False)
    service = Remembering([])
    with tempfile.TemporaryDirectory() as folder:
        read = partial(load_data, spec.dataset, options.data.absolute())
        began = time.perf_counter()
        run_searches(spec, service, train_samples=54_000, load=read, folder=Path(folder))
        wall = time.perf_counter() - began
    ray.shutdown()
    trained = sum(record.seconds for record in service.records)
    ratio = round(wall / (trained / slots), 4)
    print(json.dumps({"ratio": ratio, "trial_seconds": round(trained / TRIALS, 1), "wall_seconds": round(wall, 1)}))


if __name__ == "__main__":
    main()
