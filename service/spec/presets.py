"""Named job specs: what S1 trained with, and the same in proportion for smaller models and data. Plain documents."""

from typing import Any, Literal

PresetSpec = Literal["stpt-paper", "stpt-paper-fashion-mnist", "stpt-paper-cifar10"]

_PAPER: dict[str, Any] = {  # S1, Table 1, Table 4 and Algorithm 1, as far as they hold at every scale
    "initial_learning_rate": 0.1,
    "lr_set": "mix",
    "envelope": "constant",
    "metric": "val_accuracy",
    "selector": "greedy",
    "guards": {"extend": False, "skip_dead": False, "rollback": False, "rescale_momentum": False},
    "warmup": {"epochs": None, "learning_rate": 0.005},
}
_ALPHA: dict[str, Any] = {"weights": "raw", "batch": "per_worker"}  # Fig. 1: one branch a worker
PRESETS: dict[str, dict[str, Any]] = {
    "stpt-paper": _PAPER
    | {"model": "resnet50", "epochs": 40, "workers": 8, "global_batch_size": 512}
    | {"pretrain": _ALPHA | {"iterations": 200}},
    # alpha stays 8 % of an epoch, and warm-up a tenth of the epochs
    "stpt-paper-fashion-mnist": _PAPER
    | {"model": "lenet5", "dataset": "fashion-mnist", "epochs": 20, "workers": 2, "global_batch_size": 512}
    | {"pretrain": _ALPHA | {"batch": "global"}},
    "stpt-paper-cifar10": _PAPER
    | {"model": "resnet18-cifar", "dataset": "cifar10", "epochs": 20, "workers": 2, "global_batch_size": 256}
    | {"pretrain": _ALPHA | {"batch": "global"}},
}
