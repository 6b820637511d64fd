"""What short-term pre-training does, drawn from a real training as STPT's paper draws it (Yamada et al., Fig. 2).

    python -m benchmarks.branches docs/figures/branches.svg [--data DIR]

LeNet-5 on 4,000 images of Fashion-MNIST for 6 epochs by the paper's rule, with its wide set of candidates and a third
of an epoch for each, so that there is something to see: half a minute on two cores.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.selection import specs
from benchmarks.trainings import run_all, tasks_of
from service.wire.worker import EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHOSEN, LOST = "#1f77b4", "#bbbbbb"


def draw_accuracy(axes: "Axes", records: Sequence[EpochRecord], iterations: int) -> None:
    """Draw accuracy over iterations: from the end of each epoch the branches of the next Pre-train, and the Main-train
    that goes on from one. An epoch has so many `iterations`."""
    before = None
    for record in records:
        start, end = (record.epoch - 1) * iterations, record.epoch * iterations
        if record.branches and before is not None:
            alpha = start + record.branches[0].iterations
            for branch in sorted(record.branches, key=lambda branch: branch.state == "chosen"):
                if branch.metric is None:  # it diverged
                    continue
                color, width = (CHOSEN, 1.8) if branch.state == "chosen" else (LOST, 0.8)
                axes.plot([start, alpha], [before, branch.metric], color=color, linewidth=width)
                if branch.state == "chosen":
                    axes.plot([alpha, end], [branch.metric, record.val_accuracy], color=CHOSEN, linewidth=1.8)
        before = record.val_accuracy
    axes.set_ylabel("validation accuracy")


def draw_learning_rate(axes: "Axes", records: Sequence[EpochRecord], iterations: int) -> None:
    """Draw the candidates of each epoch, and the one that was chosen, on a logarithmic axis."""
    for record in records:
        start, end = (record.epoch - 1) * iterations, record.epoch * iterations
        rates = [branch.learning_rate for branch in record.branches]
        axes.plot([start] * len(rates), rates, "o", color=LOST, markersize=3)
        axes.plot([start, end], [record.learning_rate] * 2, color=CHOSEN, linewidth=1.8)
    axes.set(yscale="log", ylabel="learning rate", xlabel="iterations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    searching = {"name": "stpt", "pretrain": {"iterations": 20}, "warmup": {"epochs": 1, "learning_rate": 0.02}}
    spec = specs("fashion-mnist", "lenet5", 0, 6)["paper"] | {"lr_set": "wide", "methods": [searching]}
    [result] = run_all(tasks_of(("paper",), spec, train_samples=4000, val_samples=1000), arguments.data)
    iterations = 4000 // 64
    mpl.rcParams["svg.hashsalt"] = "forerun"  # the same file every time
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(8, 4.6), sharex=True, height_ratios=[2, 1], layout="constrained"
    )
    draw_accuracy(above, result.records, iterations)
    draw_learning_rate(below, result.records, iterations)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        for epoch in range(len(result.records) + 1):
            axes.axvline(epoch * iterations, color="black", linewidth=0.4, alpha=0.4)
    above.plot([], [], color=CHOSEN, label="chosen, and the Main-train that follows")
    above.plot([], [], color=LOST, label="other branches of the Pre-train")
    above.legend(loc="lower right", frameon=False)
    figure.savefig(arguments.figure, metadata={"Date": None})
    history = [record.learning_rate for record in result.records]
    print(json.dumps({"test_accuracy": result.test_accuracy, "lr_history": history}))


if __name__ == "__main__":
    main()
