"""The experiments behind the figures of three papers as jobs: documents that go through the same door as any spec.

The papers: STPT (Yamada et al., "Adaptive Learning Rate Adjustment with Short-Term Pre-Training in Data-Parallel Deep
Learning"), large-batch SGD (Signer & Barbier, "How to achieve large batch size training of a DNN with SGD by adjusting
hyperparameters?") and TVLARS (Do et al., "Revisiting LARS for Large Batch Training Generalization of Neural Networks").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from service.spec.presets import PRESETS, with_settings

Scale = Literal["paper", "fashion-mnist", "cifar10"]
Document = dict[str, Any]

# STPT, Table 1 and section III.B: alpha of the 2500 iterations of an epoch
ALPHAS = (200, 625, 1250, 2500)
EPOCH_ITERATIONS = 2500


# What the jobs of a paper have in common, at each size.
STPT_SCALES: dict[Scale, Document] = {
    scale: {"preset": preset} for scale, preset in zip(get_args(Scale), PRESETS, strict=True)
}
_LARGE_BATCH: Document = {"model": "lenet5", "global_batch_size": 64, "initial_learning_rate": 0.01}  # e0 at b0
LARGE_BATCH_SCALES: dict[Scale, Document] = {
    "paper": _LARGE_BATCH | {"dataset": "mnist", "epochs": 30},
    "fashion-mnist": _LARGE_BATCH | {"dataset": "fashion-mnist", "epochs": 12},
}
LARGE_BATCH_SIZES = [64, 128, 256, 512, 1024, 2048, 4096, 8192]
# A forward pass takes 1024 samples at most, so that batch 16384 trains anywhere.
_TVLARS: Document = {"model": "resnet18-cifar", "dataset": "cifar10", "microbatch_size": 1024}
TVLARS_SCALES: dict[Scale, Document] = {"paper": _TVLARS | {"epochs": 100}, "cifar10": _TVLARS | {"epochs": 20}}
# TVLARS, appendix A: learning rates by batch; they grow by the square root already
TVLARS_LEARNING_RATES = {
    512: [1.0, 2.0, 3.0],
    1024: [2.0, 3.0, 4.0],
    2048: [5.0, 6.0, 7.0],
    4096: [8.0, 9.0, 10.0],
    8192: [10.0, 12.0, 15.0],
    16384: [15.0, 17.0, 19.0],
}
TVLARS_LAMBDAS = [1e-2, 5e-3, 1e-3, 1e-4, 1e-5, 1e-6]
TVLARS_WEIGHT_DECAY = 5e-4  # the text of the paper at hand has lost its own


@dataclass(frozen=True)
class Experiment:
    """An experiment behind figures of a paper, which becomes jobs.

    `jobs` maps the iterations of an epoch and the number of epochs to what each job, by its name, adds to the document
    that all of them have in common, which `scales` has for each size.
    """

    name: str
    paper: str
    figures: str
    description: str
    jobs: Callable[[int, int], dict[str, Document]]
    scales: Mapping[Scale, Document]


REFERENCE: Document = {"methods": ["reference"]}


def _alphas(iterations: int, _: int) -> dict[str, Document]:
    jobs: dict[str, Document] = {}
    for alpha in ALPHAS:
        pretrain = {"iterations": max(1, alpha * iterations // EPOCH_ITERATIONS)}
        stpt = {"name": "stpt", "pretrain": pretrain}
        jobs[f"alpha {alpha / EPOCH_ITERATIONS:.0%} of an epoch"] = {"lr_set": "paper-alpha", "methods": [stpt]}
    return {**jobs, "reference": REFERENCE}


def _lr_sets(*_: int) -> dict[str, Document]:
    return {name: {"lr_set": name} for name in ("narrow", "middle", "wide")}


def _mix(*_: int) -> dict[str, Document]:
    return {"mix": {"lr_set": "mix"}, "narrow": {"lr_set": "narrow"}, "reference": REFERENCE}


def _reference(*_: int) -> dict[str, Document]:
    return {"reference": REFERENCE}


def _sweep(*_: int) -> dict[str, Document]:
    return {"every learning rate for the whole length": {"lr_set": "paper-alpha", "methods": ["sweep"]}}


def _large_batches(_: int, epochs: int) -> dict[str, Document]:
    """Signer & Barbier, section IV: the gradual warm-up takes 10 of 30 epochs."""
    linear = {"name": "fixed", "scaling": {"rule": "linear", "base_batch_size": 64}}
    sqrt = {"name": "fixed", "scaling": {"rule": "sqrt", "base_batch_size": 64}}
    gradual = linear | {"warmup": {"kind": "gradual", "epochs": max(1, epochs // 3)}}
    momentum = {"name": "sgd", "momentum": 0.9}
    variants = [
        {"name": "none", "method": "fixed"},
        {"name": "sqrt", "method": sqrt},
        {"name": "linear", "method": linear},
        {"name": "linear, gradual warm-up", "method": gradual},
        {"name": "momentum 0.9", "method": "fixed", "optimizer": momentum},
    ]
    study = {"name": "study", "batch_sizes": LARGE_BATCH_SIZES, "variants": variants}
    ramp = {"global_batch_size": 2048, "lr_schedule": "constant", "methods": ["batch-ramp"]}
    return {
        "figures 1 to 5": {"optimizer": {"name": "sgd", "momentum": 0.0}, "methods": [study]},
        "figure 6": ramp | {"optimizer": momentum},
    }


def _layer_wise(_: int, epochs: int) -> dict[str, Document]:
    """Do et al., Table 1: LARS and LAMB with 20 of 100 epochs of warm-up, TVLARS without, at each learning rate of a
    batch."""
    warmup = {"kind": "linear", "epochs": max(1, epochs // 5)}
    warm = {"name": "fixed", "warmup": warmup, "lr_schedule": {"kind": "cosine", "final": 0.001}}

    def variants(learning_rate: float) -> list[Document]:
        return [
            _variant(f"lars, warm-up, {learning_rate:g}", warm, learning_rate, {"name": "lars"}),
            _variant(f"lamb, warm-up, {learning_rate:g}", warm, learning_rate, {"name": "lamb"}),
            _variant(f"tvlars, {learning_rate:g}", {"name": "fixed"}, learning_rate, {"name": "tvlars"}),
        ]

    return {
        f"batch {batch}": _study(batch, [variant for rate in rates for variant in variants(rate)])
        for batch, rates in TVLARS_LEARNING_RATES.items()
    }


def _lambdas(*_: int) -> dict[str, Document]:
    """Do et al., Fig. 4: lambda of TVLARS at batches of 1,024 and 16,384, each with the middle one of its learning
    rates, and one gamma_min."""
    jobs = {}
    for batch in (1024, 16384):
        learning_rate = TVLARS_LEARNING_RATES[batch][1]
        variants = [
            _variant(
                f"lambda {value:g}",
                {"name": "fixed"},
                learning_rate,
                {"name": "tvlars", "decay": value, "minimum": 1e-3},
            )
            for value in TVLARS_LAMBDAS
        ]
        jobs[f"batch {batch}"] = _study(batch, variants)
    return jobs


def _variant(name: str, method: Document, learning_rate: float, optimizer: Document) -> Document:
    decayed = optimizer | {"weight_decay": TVLARS_WEIGHT_DECAY}
    return {"name": name, "method": method | {"learning_rate": learning_rate}, "optimizer": decayed}


def _study(batch: int, variants: list[Document]) -> Document:
    return {"global_batch_size": batch, "methods": [{"name": "study", "batch_sizes": [batch], "variants": variants}]}


STPT, LARGE_BATCHES = "STPT", "large-batch SGD"
LAYER_WISE = "TVLARS"
EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "alpha-sweep", STPT, "5, 6", "How long a Pre-train: 8, 25, 50 and 100 % of an epoch.", _alphas, STPT_SCALES
        ),
        Experiment("lr-sets", STPT, "7, 8", "Narrow, middle and wide sets of candidates.", _lr_sets, STPT_SCALES),
        Experiment(
            "mix",
            STPT,
            "10, 11",
            "Narrow, middle, wide in turn, beside narrow and the reference.",
            _mix,
            STPT_SCALES,
        ),
        Experiment(
            "reference",
            STPT,
            "5, 10",
            "Learning rate 0.1, divided by 10 when accuracy saturates.",
            _reference,
            STPT_SCALES,
        ),
        Experiment("conventional-sweep", STPT, "3, 4", "A whole training for each candidate.", _sweep, STPT_SCALES),
        Experiment(
            "large-batches",
            LARGE_BATCHES,
            "1 to 6",
            "Scaling rules at batches 64 to 8192; the batch ramp.",
            _large_batches,
            LARGE_BATCH_SCALES,
        ),
        Experiment(
            "layer-wise-optimizers",
            LAYER_WISE,
            "Table 1",
            "LARS and LAMB with warm-up, TVLARS without, at batches 512 to 16384.",
            _layer_wise,
            TVLARS_SCALES,
        ),
        Experiment(
            "tvlars-lambda", LAYER_WISE, "4", "How fast TVLARS decays, at 1024 and 16384.", _lambdas, TVLARS_SCALES
        ),
    )
}


def documents(experiment: Experiment, scale: Scale, changes: Document, iterations: int, group: str) -> list[Document]:
    """The specs of an experiment's jobs as documents: what they have in common at `scale`, which is one of the
    experiment's, then the user's `changes`, then what the experiment varies. `iterations`: those of an epoch; `group`:
    the name that the jobs share in their key `experiment`."""
    common = {**experiment.scales[scale], **changes}
    if _is_of_whole_batches(changes.get("task")) and "microbatch_size" not in changes:
        common.pop("microbatch_size", None)
    epochs = common.get("epochs")
    specs = []
    for name, varied in experiment.jobs(iterations, epochs if isinstance(epochs, int) else 1).items():
        merged = {**common, **varied}
        if "methods" in varied:
            merged["methods"] = [with_settings(method, _stpt_of(changes)) for method in varied["methods"]]
        specs.append(merged | {"name": name, "experiment": group})
    return specs


def _stpt_of(changes: Document) -> Document:
    """The settings of stpt among the user's changes."""
    methods = changes.get("methods")
    dictionaries = [method for method in methods if isinstance(method, dict)] if isinstance(methods, list) else []
    return next((method for method in dictionaries if method.get("name") == "stpt"), {})


def _is_of_whole_batches(task: Any) -> bool:
    """Whether its loss allows no accumulation."""
    return (task.get("name") if isinstance(task, dict) else task) == "barlow-twins"
