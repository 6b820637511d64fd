"""Algorithm 1 of STPT (Yamada et al.) as slowly and plainly as can be: one process, no copy that is not a deepcopy.

Each candidate trains a copy of model and optimizer; the copy that is best on the validation split goes on. `shares` is
how many microbatches an iteration falls into (docs/decisions/0002): as many as there are workers.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from workers.datasets.load import Data
from workers.engine.seeds import derived_seed

CPU = torch.device("cpu")


def train(
    data: Data, make_model: Callable[[], nn.Module], document: dict[str, Any], shares: int
) -> tuple[list[float], Tensor]:
    """Train a job spec, a document of which only the keys of STPT's paper are taken: (learning rates of the epochs,
    last weights)."""
    [stpt] = document["methods"]
    alpha, beta = stpt["pretrain"]["iterations"], stpt["main_train"]["iterations"]
    current, warmup, seed = document["initial_learning_rate"], stpt["warmup"], document["seed"]
    torch.manual_seed(seed)
    model = make_model()
    optimizer = _optimizer(document["optimizer"], model, current)
    chosen = []
    for epoch in range(1, document["epochs"] + 1):
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
        order = torch.randperm(len(data.train), generator=generator)
        batches = list(order.split(document["global_batch_size"]))
        if epoch <= warmup["epochs"]:
            _steps(model, optimizer, warmup["learning_rate"], data, batches[: alpha + beta], shares)
            chosen.append(warmup["learning_rate"])
            continue
        branches = []
        for factor in document["lr_set"]["factors"]:
            branch, its_optimizer = copy.deepcopy((model, optimizer))
            learning_rate = min(current * factor, 1.0)
            _steps(branch, its_optimizer, learning_rate, data, batches[:alpha], shares)
            distance = round(abs(math.log(learning_rate / current)), 9)
            branches.append((-_right(branch, data), distance, learning_rate, branch, its_optimizer))
        _, _, current, model, optimizer = min(branches, key=lambda branch: branch[:3])
        _steps(model, optimizer, current, data, batches[alpha : alpha + beta], shares)
        chosen.append(current)
    return chosen, torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def _optimizer(name: str, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(model.parameters(), lr=learning_rate)
    return torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)


def _steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    data: Data,
    batches: Sequence[Tensor],
    shares: int,
) -> None:
    optimizer.param_groups[0]["lr"] = learning_rate
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        for number, share in enumerate(batch.chunk(shares)):
            statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
            images, labels = data.train.batch(share, CPU)
            (cross_entropy(model(images), labels) / shares).backward()
            if number:  # running statistics are those of the first share
                for name, buffer in model.named_buffers():
                    buffer.copy_(statistics[name])
        optimizer.step()


def _right(model: nn.Module, data: Data) -> int:
    images, labels = data.validation.batch(torch.arange(len(data.validation)), CPU)
    with torch.no_grad():
        return int((model.eval()(images).argmax(1) == labels).sum())
