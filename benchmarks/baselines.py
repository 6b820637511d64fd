"""STPT beside its baselines at equal cost: every method gets the training samples that the default STPT took.

    python -m benchmarks.baselines --dataset fashion-mnist [--quick] [--data DIR]

One job through the engine and Ray Tune, without the service: what one seed's STPT took is the budget of each baseline
with that seed, search included; evaluations are not counted. `test_accuracy` is that of the epoch with the best
validation accuracy of all trials of a method, in per cent: the mean over the seeds, with the sample standard deviation
as `spread`; `cost` is in training samples, `seconds` the sum of the epochs'. The last line is one JSON object.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ray
import torch

from benchmarks.trainings import subset
from service.algorithms.epoch_plan import count_train_samples
from service.spec.job import JobSpec
from service.wire.worker import EpochRecord, TrialProgress, TrialRecord
from workers.datasets.load import Data, load_data
from workers.engine.groups import Workers
from workers.records_file import RecordsFile
from workers.trainings import train_job
from workers.tune.driver import run_searches

METHODS = [
    "stpt", "hyperband", "asha", "tpe", "smac", "pbt", "pb2", "random", "grid", "cosine", "linear", "wsd",
    "lr-range-test", "autolrs", "schedule-free", "prodigy", "prodigy-schedule-free", "dog", "d-adaptation", "mechanic",
    "polling",
]  # fmt: skip
QUICK = {"model": "lenet5", "global_batch_size": 64, "epochs": 10}
SEEDS = 3
TRAIN_SAMPLES, VAL_SAMPLES = 4000, 1000  # --quick, as benchmarks.selection


class Remembering:
    """Stands for the API, as a search sees it: it remembers what it is told, in memory. `known` are the trials that it
    knows of at first."""

    pause_asked = False

    def __init__(self, known: Iterable[TrialProgress]) -> None:
        self.known, self.records = list(known), list[EpochRecord]()
        self.trials: dict[tuple[str, int], TrialRecord] = {}

    def trial(self, record: TrialRecord) -> None:
        self.trials[record.label, record.trial] = record

    def epoch(self, record: EpochRecord) -> None:
        self.records.append(record)

    def waits_for(self, reason: str | None) -> None:
        pass

    def progress(self) -> list[TrialProgress]:
        mine = [
            TrialProgress(
                label=trial.label,
                trial=trial.trial,
                key=trial.key,
                seed=trial.seed,
                config=trial.config,
                state=trial.state,
                epochs=0,
                samples=0,
            )
            for trial in self.trials.values()
        ]
        return [*self.known, *mine]


def load(spec: JobSpec, data_dir: Path, quick: bool, device: torch.device) -> Data:
    """The dataset of the spec on `device`; where `quick`, a small part of its training and validation splits."""
    data = load_data(spec.dataset, data_dir, device)
    return subset(data, TRAIN_SAMPLES, VAL_SAMPLES, len(data.test)) if quick else data


def train_seed(document: dict[str, Any], seed: int, data_dir: Path, quick: bool, folder: Path) -> None:
    """Train every method that does not search, with one seed; the records of its epochs lie in `folder`."""
    torch.set_num_threads(1)
    spec = JobSpec.model_validate(document | {"seed": seed, "seeds": 1})
    spec = spec.model_copy(update={"methods": [m for m in spec.methods if not m.is_search]})
    data = load(spec, data_dir, quick, torch.device("cpu"))
    workers = Workers(torch.device("cpu"))
    recorder = RecordsFile(folder)
    for _ in train_job(spec, data, workers, points=(), trials=(), attempt=1, folder=folder, recorder=recorder):
        pass


def best(records: Iterable[EpochRecord]) -> EpochRecord:
    """The record of the epoch with the best validation accuracy, of equals the first. The test split is not looked
    at."""
    return max(records, key=lambda record: (record.val_accuracy, -record.epoch))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=["fashion-mnist", "mnist", "digits", "cifar10"], default="fashion-mnist")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument("--quick", action="store_true", help="4,000 training images, 1,000 to validate with")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    data_dir = options.data.absolute()
    document: dict[str, Any] = {
        **QUICK,
        "dataset": {"name": options.dataset, "validation_fraction": 0.1},
        "methods": METHODS,
        "budget": {"relative_to": "stpt"},
        "seeds": SEEDS,
    }
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, f"seed-{seed}") for seed in range(SEEDS)]
        for path in folders:
            path.mkdir()
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
            jobs = [
                pool.submit(train_seed, document, s, data_dir, options.quick, path) for s, path in enumerate(folders)
            ]
            for job in jobs:
                job.result()
        spec = JobSpec.model_validate(document)
        records: dict[str, dict[int, list[EpochRecord]]] = defaultdict(dict)
        known = []
        for seed, path in enumerate(folders):
            for record in RecordsFile(path).records():
                records[record.label].setdefault(seed, []).append(record)
            one = spec.model_copy(update={"seed": seed, "seeds": 1})
            known += [trial for trial in RecordsFile(path).trials(one) if trial.label == "stpt"]
        searches = spec.model_copy(update={"methods": [m for m in spec.methods if m.is_search]})
        ray.init(include_dashboard=False, log_to_driver=False)
        service = Remembering(known)
        train_samples = TRAIN_SAMPLES if options.quick else count_train_samples(spec.dataset, data_dir)
        read = partial(load, spec, data_dir, options.quick)
        run_searches(searches, service, train_samples=train_samples, load=read, folder=Path(folder, "tune"))
        ray.shutdown()
    for record in service.records:
        seed = service.trials[record.label, record.trial].seed
        records[record.label].setdefault(seed, []).append(record)
    print(
        json.dumps(
            {
                "methods": {name: summary(records[name]) for name in METHODS},
            }
        )
    )


def summary(by_seed: dict[int, list[EpochRecord]]) -> dict[str, float]:
    """The row of one method, from its records by seed: test accuracy and spread in per cent, cost in training samples,
    seconds."""
    accuracies = [100 * best(records).test_accuracy for records in by_seed.values()]
    costs = [sum(record.samples for record in records) for records in by_seed.values()]
    seconds = [sum(record.seconds for record in records) for records in by_seed.values()]
    return {
        "test_accuracy": round(statistics.mean(accuracies), 2),
        "spread": round(statistics.stdev(accuracies), 2) if len(accuracies) > 1 else 0.0,
        "cost": round(statistics.mean(costs)),
        "seconds": round(statistics.mean(seconds), 1),
    }


if __name__ == "__main__":
    main()
