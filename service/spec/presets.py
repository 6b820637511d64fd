"""Named job specs as plain documents: what the paper of STPT (Yamada et al.) trained with, and the same in proportion
for smaller models and data."""

from collections.abc import Mapping
from typing import Any, Literal

PresetName = Literal["stpt-paper", "stpt-paper-fashion-mnist", "stpt-paper-cifar10"]
Document = dict[str, Any]

# Table 1, Table 4 and Algorithm 1, as far as they hold at every scale
_JOB: Document = {"initial_learning_rate": 0.1, "lr_set": "mix", "lr_schedule": "constant"}
_STPT: Document = {
    "metric": "val_accuracy",
    "selector": "greedy",
    "guards": {"extend": False, "skip_dead": False, "rollback": False, "rescale_momentum": False},
    "warmup": {"epochs": None, "learning_rate": 0.005},
    "pretrain": {"weights": "raw", "batch": "global"},  # alpha stays 8 % of an epoch, and warm-up a tenth of the epochs
}
# A preset: keys of the job, and under "stpt" settings of each stpt among its methods.
PRESETS: dict[str, Document] = {
    "stpt-paper": _JOB
    | {"model": "resnet50", "epochs": 40, "workers": 8, "global_batch_size": 512}
    # Fig. 1: one branch a worker
    | {"stpt": _STPT | {"pretrain": {"weights": "raw", "batch": "per_worker", "iterations": 200}}},
    "stpt-paper-fashion-mnist": _JOB
    | {"model": "lenet5", "dataset": "fashion-mnist", "epochs": 20, "workers": 2, "global_batch_size": 512}
    | {"stpt": _STPT},
    "stpt-paper-cifar10": _JOB
    | {"model": "resnet18-cifar", "dataset": "cifar10", "epochs": 20, "workers": 2, "global_batch_size": 256}
    | {"stpt": _STPT},
}


def with_preset(document: Document) -> Document:
    """The document of a spec with what its preset says where it says nothing itself, also of each stpt among its
    methods, and inside their pretrain, warmup and guards. It is unchanged where it names no preset that there is."""
    name = document.get("preset")
    if not isinstance(name, str) or name not in PRESETS:
        return document
    preset = dict(PRESETS[name])
    settings = preset.pop("stpt")
    methods = document.get("methods", ["stpt"])
    if isinstance(methods, list):  # anything else is for the door to refuse
        document = document | {"methods": [with_settings(method, settings) for method in methods]}
    return preset | document


def with_settings(method: Any, settings: Document) -> Any:
    """The document of a method, if it is stpt with `settings` where it says nothing itself, else unchanged."""
    named = {"name": method} if isinstance(method, str) else method
    if not isinstance(named, Mapping) or named.get("name") != "stpt":
        return method
    merged = {**settings, **named}
    for key, default in settings.items():
        if isinstance(default, dict) and isinstance(given := named.get(key), dict):
            merged[key] = default | given
    return merged
