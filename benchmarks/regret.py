"""How far does the default end from what the best learning rate and schedule would have given? Regret to the oracle.

    python -m benchmarks.regret [--quick] [--workloads NAME,NAME] [--seeds 5] [--data DIR] [--records FILE]

Every training has the same budget, in training samples, its search included; evaluations are not counted. The oracle
is the best, by its mean test accuracy over the seeds, of eight learning rates x {linear, cosine, schedule-free}, each
a training that spends the whole budget: nobody could choose it. The default is stpt with nothing but its defaults;
regret is how many points of test accuracy it ends behind the oracle. The other methods have their own defaults. Test
accuracy is that of the last weights on the whole test split, in per cent; a training that diverges counts as chance.

The rule of the default was tuned on the workloads TUNED, and not on those HELD_OUT. FILE keeps a line of JSON for each
finished training: a run that finds it there does not train it again. The last line printed is one JSON object.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import ray
import torch

from benchmarks.baselines import Remembering
from benchmarks.trainings import Result, Task, run_all, subset
from service.spec.catalog import DATASETS
from service.spec.job import JobSpec
from service.wire.worker import EpochRecord
from workers.datasets.load import Data, load_data
from workers.tune.driver import run_searches

DEFAULT = "stpt"
METHODS = [
    "linear", "cosine", "wsd", "lr-range-test", "autolrs", "polling", "schedule-free", "prodigy",
    "prodigy-schedule-free", "d-adaptation", "dog", "mechanic",
]  # fmt: skip
SEARCHES = ["pb2"]  # by Ray Tune
VAL_SAMPLES = 1000
SEEDS, QUICK_SEEDS = 5, 3

SGD = [2.0**power for power in range(-7, 1)]
ADAM = [0.008 / 2**power for power in reversed(range(8))]
GRIDS = {
    "sgd": SGD,
    "adam": ADAM,
    "adamw": ADAM,
    "lars": [0.5 * 2**power for power in range(8)],
    "lamb": [0.0005 * 2**power for power in range(8)],
}
# Its authors advise larger learning rates than those of a schedule (Defazio et al. 2024); it is SGD's and Adam's alone.
SCHEDULE_FREE = {name: [4 * rate for rate in GRIDS[name]] for name in ("sgd", "adam", "adamw")}
INITIAL_LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001, "lars": 1.0, "lamb": 0.01}


@dataclass(frozen=True)
class Workload:
    """What is trained: a model on the first `samples` training samples of a dataset, within so many epochs."""

    model: str
    dataset: str
    samples: int
    batch: int
    optimizer: str  # with its defaults
    epochs: int

    @property
    def budget(self) -> int:
        """The budget of each training, in training samples."""
        return self.epochs * (self.samples // self.batch) * self.batch

    @property
    def chance(self) -> float:
        """The test accuracy of a net that answers at random, in per cent."""
        return 100 / DATASETS[self.dataset].classes


TUNED = {  # looked at, with one to three seeds, while the rule was made
    "fm-lenet5-sgd": Workload("lenet5", "fashion-mnist", 4000, 64, "sgd", 12),
    "mn-mlp-sgd": Workload("mlp", "mnist", 5000, 128, "sgd", 12),
    "cf-mlpln-adamw": Workload("mlp-ln", "cifar10", 10_000, 32, "adamw", 6),
    "dg-lenet5-sgd": Workload("lenet5", "digits", 1280, 128, "sgd", 60),
    "cf-lenet5bn-adamw": Workload("lenet5-bn", "cifar10", 5000, 64, "adamw", 12),
    "cf-lenet5bn-lars": Workload("lenet5-bn", "cifar10", 4096, 512, "lars", 30),
    "fm-lenet5bn-sgd": Workload("lenet5-bn", "fashion-mnist", 4000, 64, "sgd", 12),
    "mn-lenet5-adam": Workload("lenet5", "mnist", 5000, 128, "adam", 12),
    "fm-mlpln-sgd": Workload("mlp-ln", "fashion-mnist", 5000, 128, "sgd", 12),
}
HELD_OUT = {
    "cf-lenet5-sgd": Workload("lenet5", "cifar10", 5000, 32, "sgd", 12),
    "fm-mlp-lamb": Workload("mlp", "fashion-mnist", 5000, 512, "lamb", 40),
    "dg-mlp-adamw": Workload("mlp", "digits", 1280, 64, "adamw", 20),
    "mn-lenet5bn-lamb": Workload("lenet5-bn", "mnist", 4096, 512, "lamb", 30),
}
WORKLOADS = TUNED | HELD_OUT
QUICK = ["mn-mlp-sgd", "fm-mlp-lamb"]


@dataclass(frozen=True)
class Run:
    """A method with one seed on a workload. `learning_rate` is that of a training of the oracle; None: the method has
    its defaults."""

    workload: str
    method: str
    learning_rate: float | None
    seed: int

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of the job that is the run, as a document."""
        workload = WORKLOADS[self.workload]
        rate = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return {
            "model": workload.model,
            "dataset": workload.dataset,
            "optimizer": workload.optimizer,
            "global_batch_size": workload.batch,
            "epochs": workload.epochs,
            "budget": {"epochs": workload.epochs},
            "initial_learning_rate": INITIAL_LEARNING_RATES[workload.optimizer],
            "seed": self.seed,
            "methods": [{"name": self.method, **rate}],
        }

    def __str__(self) -> str:
        rate = "by its defaults" if self.learning_rate is None else f"at {self.learning_rate:g}"
        return f"{self.workload} {self.method} {rate}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """The result of a run, as a line of the records has it: `spec` is what was trained, costs are in training samples;
    `searched` are those that made no model."""

    run: Run
    spec: dict[str, Any]
    test_accuracy: float  # in per cent
    samples: int
    searched: int
    seconds: float
    diverged: str | None = None


# --- what is trained -------------------------------------------------------------------------------------


def candidates_of_oracle(optimizer: str) -> list[tuple[str, float]]:
    """The methods and learning rates among which the oracle is the best, for a job with that optimizer."""
    grids = {"linear": GRIDS[optimizer], "cosine": GRIDS[optimizer], "schedule-free": SCHEDULE_FREE.get(optimizer, [])}
    return [(method, rate) for method, rates in grids.items() for rate in rates]


def runs_of(name: str, seeds: int, searches: Sequence[str]) -> list[Run]:
    """The runs of a workload: the default, every other method by its defaults, and those of the oracle, each with so
    many seeds."""
    by_defaults = [(method, None) for method in (DEFAULT, *METHODS, *searches)]
    kinds = [*by_defaults, *candidates_of_oracle(WORKLOADS[name].optimizer)]
    return [Run(name, method, rate, seed) for method, rate in kinds for seed in range(seeds)]


def searched(records: Sequence[EpochRecord]) -> int:
    """The training samples that made no model: what epochs took in excess of the cheapest, in which nothing was
    searched."""
    samples = [record.samples for record in records]
    return sum(samples) - len(samples) * min(samples, default=0)


def train(runs: Iterable[Run], data_dir: Path) -> Iterator[Outcome]:
    """Train what is no search, as many runs at a time as there are cores, and yield each outcome as it comes."""
    tasks = [Task((run,), run.spec, 1, WORKLOADS[run.workload].samples, VAL_SAMPLES) for run in runs]
    return map(outcome_of, run_all(tasks, data_dir))


def outcome_of(result: Result) -> Outcome:
    """The outcome of a training by its result, whose key is the run; one that diverged answers at random."""
    [run] = result.key
    return Outcome(
        run,
        run.spec,
        test_accuracy=100 * result.test_accuracy if result.diverged is None else WORKLOADS[run.workload].chance,
        samples=result.samples,
        searched=searched(result.records),
        seconds=result.seconds,
        diverged=result.diverged,
    )


def search(runs: Sequence[Run], data_dir: Path) -> Iterator[Outcome]:
    """Run the searches by Ray Tune, one after another, and yield each outcome: the test accuracy of the trial whose
    last epoch has the best validation accuracy."""
    if not runs:
        return
    logging.basicConfig(level=logging.WARNING)
    ray.init(include_dashboard=False, log_to_driver=False)
    for number, run in enumerate(runs, start=1):
        workload, spec, service = WORKLOADS[run.workload], JobSpec.model_validate(run.spec), Remembering([])
        read = partial(load, spec, workload.samples, data_dir)
        with tempfile.TemporaryDirectory() as folder:
            run_searches(spec, service, train_samples=workload.samples, load=read, folder=Path(folder))
        last = {record.trial: record for record in service.records}
        best = max(last.values(), key=lambda record: record.val_accuracy)
        took = sum(record.samples for record in service.records)
        yield Outcome(
            run,
            run.spec,
            test_accuracy=100 * best.test_accuracy,
            samples=took,
            searched=took - best.epoch * best.samples,
            seconds=sum(record.seconds for record in service.records),
        )
        print(f"{number} of {len(runs)} searches: {run}", file=sys.stderr, flush=True)
    ray.shutdown()


def load(spec: JobSpec, train_samples: int, data_dir: Path, device: torch.device) -> Data:
    """The data of a search: of the training split so many samples, of the validation split VAL_SAMPLES."""
    data = load_data(spec.dataset, data_dir, device)
    return subset(data, train_samples, VAL_SAMPLES, len(data.test))


def recorded(path: Path | None) -> Iterator[Outcome]:
    """Yield the outcomes that lie in the file, if there is one, of what would be trained today."""
    if path is None or not path.exists():
        return
    for line in path.read_text().splitlines():
        told = json.loads(line)
        outcome = Outcome(Run(**told.pop("run")), **told)
        if outcome.run.workload in WORKLOADS and outcome.spec == outcome.run.spec:
            yield outcome


# --- what it comes to ------------------------------------------------------------------------------------


def mean(values: Iterable[float]) -> float:
    return round(statistics.fmean(values), 2)


def row_of(name: str, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """The row of a workload by all its outcomes: accuracies in per cent, regret in points."""
    by_run: dict[tuple[str, float | None], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_run[outcome.run.method, outcome.run.learning_rate].append(outcome)
    accuracies = {run: mean(outcome.test_accuracy for outcome in of_run) for run, of_run in by_run.items()}
    method, learning_rate = max((run for run in accuracies if run[1] is not None), key=lambda run: accuracies[run])
    oracle, default = accuracies[method, learning_rate], by_run[DEFAULT, None]
    budget = WORKLOADS[name].budget
    ends = [outcome.test_accuracy for outcome in default]
    return {
        "budget": budget,
        "oracle": {"test_accuracy": oracle, "method": method, "learning_rate": learning_rate},
        "default": {
            "test_accuracy": accuracies[DEFAULT, None],
            "spread": round(statistics.stdev(ends), 2) if len(ends) > 1 else 0.0,
            "cost": round(statistics.mean(outcome.samples for outcome in default) / budget, 4),
            "search_share": round(statistics.mean(outcome.searched for outcome in default) / budget, 4),
        },
        "regret": round(oracle - accuracies[DEFAULT, None], 2),
        "methods": {
            method: accuracy for (method, rate), accuracy in accuracies.items() if rate is None and method != DEFAULT
        },
    }


def ranks_of(row: Mapping[str, Any]) -> dict[str, int]:
    """The rank of each method of a row, the default among them, by mean test accuracy: 1 is the best; equals share a
    rank."""
    accuracies = row["methods"] | {DEFAULT: row["default"]["test_accuracy"]}
    return {name: 1 + sum(other > mine for other in accuracies.values()) for name, mine in accuracies.items()}


def summary_of(rows: Mapping[str, Any]) -> dict[str, Any]:
    """The last line that is printed, by the row of each workload."""
    regrets = [row["regret"] for row in rows.values()]
    return {
        "workloads": rows,
        "mean_regret": mean(regrets),
        "worst_regret": max(regrets),
        "mean_rank_of_default": mean(ranks_of(row)[DEFAULT] for row in rows.values()),
    }


def show(rows: Mapping[str, Any]) -> None:
    """Print a table of workloads, and the mean rank of each method."""
    for name, row in rows.items():
        oracle, default = row["oracle"], row["default"]
        optimizer, method = WORKLOADS[name].optimizer, oracle["method"]
        grid = [rate for candidate, rate in candidates_of_oracle(optimizer) if candidate == method]
        at_end = ", an end of its grid" if oracle["learning_rate"] in (grid[0], grid[-1]) else ""
        print(
            f"{name:18} {'tuned' if name in TUNED else 'held out':8} oracle {oracle['test_accuracy']:.2f} "
            f"({method} {oracle['learning_rate']:g}{at_end}), default {default['test_accuracy']:.2f} "
            f"±{default['spread']:.2f}, regret {row['regret']:.2f}, cost {default['cost']:.3f}"
        )
    ranks: dict[str, list[int]] = defaultdict(list)
    for row in rows.values():
        for method, rank in ranks_of(row).items():
            ranks[method].append(rank)
    for method in sorted(ranks, key=lambda method: statistics.mean(ranks[method])):
        print(f"{method:22} mean rank {statistics.mean(ranks[method]):.1f}")


def arguments() -> argparse.Namespace:
    """The arguments of the command line, with the defaults that `--quick` gives them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regret", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)} alone, with {QUICK_SEEDS} seeds")
    parser.add_argument("--workloads", type=lambda text: text.split(","), help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--seeds", type=int, help=f"trainings of each kind; {SEEDS} unless said otherwise")
    parser.add_argument(
        "--with-searches", action=argparse.BooleanOptionalAction, help="pb2, too, which needs Ray; not with --quick"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument("--records", type=Path, help="file of finished trainings, to go on from and to append to")
    options = parser.parse_args()
    options.workloads = options.workloads or (QUICK if options.quick else list(WORKLOADS))
    options.seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    if options.with_searches is None:
        options.with_searches = not options.quick
    if unknown := set(options.workloads) - set(WORKLOADS):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    return options


def main() -> None:
    options = arguments()
    data_dir = options.data.absolute()
    searches = SEARCHES if options.with_searches else []
    runs = {name: runs_of(name, options.seeds, searches) for name in options.workloads}
    known = {outcome.run: outcome for outcome in recorded(options.records)}
    waiting = [run for name in runs for run in runs[name] if run not in known]
    with open(options.records or os.devnull, "a") as file:
        for outcome in chain(
            train([run for run in waiting if run.method not in SEARCHES], data_dir),
            search([run for run in waiting if run.method in SEARCHES], data_dir),
        ):
            known[outcome.run] = outcome
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
    rows = {name: row_of(name, [known[run] for run in runs[name]]) for name in runs}
    show(rows)
    print(json.dumps(summary_of(rows)))


if __name__ == "__main__":
    main()
