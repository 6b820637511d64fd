"""The studies behind S1's figures, as jobs: plain documents that go through the same door as any other spec."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from service.presets import PRESETS

Scale = Literal["paper", "fashion-mnist", "cifar10"]
Document = dict[str, Any]

# Table 1 and section III.B: alpha of the 2500 iterations of an epoch
ALPHAS = (200, 625, 1250, 2500)
EPOCH_ITERATIONS = 2500


@dataclass(frozen=True)
class Experiment:
    """`jobs`: name and changes to the preset of each, given the iterations of an epoch."""

    name: str
    figures: str
    description: str
    jobs: Callable[[int], dict[str, Document]]


REFERENCE: Document = {"methods": ["reference"]}


def _alphas(iterations: int) -> dict[str, Document]:
    jobs: dict[str, Document] = {}
    for alpha in ALPHAS:
        pretrain = {"iterations": max(1, alpha * iterations // EPOCH_ITERATIONS)}
        jobs[f"alpha {alpha / EPOCH_ITERATIONS:.0%} of an epoch"] = {"lr_set": "paper-alpha", "pretrain": pretrain}
    return {**jobs, "reference": REFERENCE}


def _lr_sets(_: int) -> dict[str, Document]:
    return {name: {"lr_set": name} for name in ("narrow", "middle", "wide")}


def _mix(_: int) -> dict[str, Document]:
    return {"mix": {"lr_set": "mix"}, "narrow": {"lr_set": "narrow"}, "reference": REFERENCE}


def _reference(_: int) -> dict[str, Document]:
    return {"reference": REFERENCE}


def _sweep(_: int) -> dict[str, Document]:
    return {"every learning rate for the whole length": {"lr_set": "paper-alpha", "methods": ["sweep"]}}


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("alpha-sweep", "5, 6", "How long a Pre-train: 8, 25, 50 and 100 % of an epoch.", _alphas),
        Experiment("lr-sets", "7, 8", "Narrow, middle and wide sets of candidates.", _lr_sets),
        Experiment("mix", "10, 11", "The schedule of sets, beside the narrow set and the reference.", _mix),
        Experiment("reference", "5, 10", "Learning rate 0.1, divided by 10 when accuracy saturates.", _reference),
        Experiment("conventional-sweep", "3, 4", "A whole training for each candidate.", _sweep),
    )
}


def documents(experiment: Experiment, scale: Scale, changes: Document, iterations: int, group: str) -> list[Document]:
    """The specs of the experiment's jobs: the preset of the scale, the user's `changes`, then what the study varies."""
    preset = PRESET_OF[scale]
    specs = []
    for name, varied in experiment.jobs(iterations).items():
        merged = {"preset": preset, **changes, **varied}
        pretrain = changes.get("pretrain", {})
        if isinstance(pretrain, dict):  # anything else is for the door to refuse
            pretrain = pretrain | varied.get("pretrain", {})
        specs.append(merged | {"pretrain": pretrain, "name": name, "experiment": group})
    return specs


PRESET_OF: dict[Scale, str] = dict(zip(get_args(Scale), PRESETS, strict=True))
