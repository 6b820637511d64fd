"""STPT (Yamada et al.), Fig. 9: the learning rates within reach of every epoch's Pre-train, as a figure.

python -m benchmarks.search_area docs/figures/search-area.svg
"""

import json
import sys

import matplotlib as mpl
from matplotlib import pyplot as plt

from service.algorithms.cost import search_area
from service.spec.job import JobSpec
from service.spec.methods.stpt import StptMethod

SETS = ("mix", "narrow", "middle", "wide")


def main(path: str) -> None:
    mpl.rcParams["svg.hashsalt"] = "forerun"  # the same file every time
    figure, axes = plt.subplots(1, len(SETS), figsize=(12, 3), sharey=True, layout="constrained")
    bounds = {}
    for axis, name in zip(axes, SETS, strict=True):
        spec = JobSpec.model_validate({"preset": "stpt-paper", "dataset": "cifar10", "lr_set": name})
        [method] = spec.methods_of(StptMethod)
        areas = search_area(spec, method)
        epochs = [area.epoch for area in areas]
        axis.fill_between(epochs, [area.low for area in areas], [area.high for area in areas], alpha=0.3)
        axis.axhline(spec.initial_learning_rate, color="black", linewidth=0.5)
        axis.set(title=name, xlabel="epoch", yscale="log", xlim=(1, spec.epochs), ylim=(1e-6, 2))
        bounds[name] = [areas[-1].low, areas[-1].high]
    axes[0].set_ylabel("learning rate")
    figure.savefig(path, metadata={"Date": None})
    print(json.dumps({"last_epoch": bounds}))


if __name__ == "__main__":
    main(sys.argv[1])
