"""Is the shipped default as good as the best of eight cosine schedules, for a third of their cost?

    python -m benchmarks.selection --dataset fashion-mnist [--quick] [--data DIR] [--seeds 3]

For each model, on the same data, batch and seeds: a whole training at each of eight fixed learning rates, one with a
cosine from each of eight peaks, the paper's rule, and the default. Test accuracy is the mean over the seeds, `spread`
its standard deviation; "best" is the learning rate whose mean test accuracy is highest, which favours the baselines:
nobody could choose it. Cost is in training samples, all branches counted.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.trainings import Result, run_all, tasks_of

LEARNING_RATES = [0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01]
MODELS = ("lenet5", "lenet5-bn")
OPTIMIZER = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4}


def specs(dataset: str, model: str, seed: int, epochs: int) -> dict[str, dict[str, Any]]:
    common = {
        "dataset": dataset,
        "model": model,
        "seed": seed,
        "epochs": epochs,
        "global_batch_size": 64,
        "workers": 1,
        "optimizer": OPTIMIZER,
    }

    def sweep(lr_schedule: str) -> dict[str, Any]:
        return common | {"methods": [{"name": "sweep", "learning_rates": LEARNING_RATES, "lr_schedule": lr_schedule}]}

    return {
        "default": common,
        "paper": {"preset": "stpt-paper-fashion-mnist", **common},
        "fixed": sweep("constant"),
        "cosine": sweep("cosine"),
    }


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The results of one method and learning rate as one row: means over the seeds, with their standard deviation."""
    accuracies = [result.test_accuracy for result in results]
    return {
        "test_accuracy": round(statistics.mean(accuracies), 4),
        "spread": round(statistics.stdev(accuracies), 4) if len(accuracies) > 1 else 0.0,
        "cost": round(statistics.mean(result.samples for result in results)),
        "seconds": round(statistics.mean(result.seconds for result in results), 2),
    }


def best(by_trial: dict[int, list[Result]]) -> dict[str, Any]:
    """The row of the learning rate whose mean test accuracy is highest; `by_trial` has the results of each, one for
    each seed."""
    trials = {LEARNING_RATES[trial - 1]: summary(results) for trial, results in by_trial.items()}
    learning_rate = max(trials, key=lambda rate: trials[rate]["test_accuracy"])
    every = {f"{rate:g}": trials[rate]["test_accuracy"] for rate in sorted(trials)}
    return trials[learning_rate] | {"learning_rate": learning_rate, "test_accuracy_by_learning_rate": every}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="fashion-mnist", choices=["fashion-mnist", "mnist", "cifar10"])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="4,000 images and 10 epochs instead of all and 20")
    options = parser.parse_args()
    train_samples, val_samples, epochs = (4_000, 1_000, 10) if options.quick else (10**9, 10**9, 20)
    tasks = [
        task
        for seed in range(options.seeds)
        for model in MODELS
        for kind, spec in specs(options.dataset, model, seed, epochs).items()
        for task in tasks_of((model, kind, seed), spec, train_samples=train_samples, val_samples=val_samples)
    ]
    found: dict[str, dict[str, dict[int, list[Result]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for result in run_all(tasks, options.data):
        model, kind, _, trial = result.key
        found[model][kind][trial].append(result)
    models = {}
    for model, kinds in found.items():
        default = kinds["default"][1]
        models[model] = {
            "default": summary(default)
            | {"learning_rates": [result.records[-1].learning_rate for result in default if result.records]},
            "paper": summary(kinds["paper"][1]),
            "best_fixed": best(kinds["fixed"]),
            "best_cosine": best(kinds["cosine"]),
            "cosines_total_cost": sum(summary(results)["cost"] for results in kinds["cosine"].values()),
        }
        for name in ("default", "paper", "best_fixed", "best_cosine"):
            row = models[model][name]
            cost = row["cost"] / models[model]["cosines_total_cost"]
            print(f"{model:10} {name:12} {row['test_accuracy']:.4f} ±{row['spread']:.4f}  {cost:.1%} of the cosines")
    print(json.dumps({"models": models}))


if __name__ == "__main__":
    main()
