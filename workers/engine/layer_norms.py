"""Telemetry of layers: norms of each layer's weights and gradient at sampled steps, and its trust ratio (TVLARS, Do et
al., Fig. 2).

Sampling a step costs two fused passes over weights and gradients; nothing is brought to the host before the epoch ends.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from service.wire.worker import LayersRecord, most_samples

DIGITS = 6  # significant ones of a norm in a record: float32 has seven


class Collector:
    """Collects the samples of the epoch at hand, on the device.

    A layer is a parameter of two dimensions or more: what a layer-wise optimizer adapts, biases and the parameters of
    norms left out, as TVLARS has it. Its trust ratio is what the optimizer's method `trust_ratios()`, where it has one,
    returns after the step: a 0-D tensor for each parameter in the order of `model.parameters()`.

    `values`, float32 [quantities, layers, samples], is to be saved, restored and broadcast with the training state:
    then what was sampled in a branch, a Main-train that is undone or an audit lives and dies with its weights, and in
    the end the samples are those of the steps that made the model.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, iterations: int, every: int, device: torch.device
    ) -> None:
        """Collect from `model` under `optimizer`, in epochs of so many `iterations`, at each step whose number is a
        multiple of `every` (of a larger one where that would be too many samples); the samples lie on `device`."""
        parameters = list(model.named_parameters())
        self._places = [place for place, (_, parameter) in enumerate(parameters) if parameter.ndim > 1]
        self.names = [parameters[place][0] for place in self._places]
        self._parameters = [parameters[place][1] for place in self._places]
        self._weights = [parameter.detach() for parameter in self._parameters]
        self._no_gradient = torch.zeros((), device=device)  # of a layer that the loss does not depend on
        self._trust_ratios = getattr(optimizer, "trust_ratios", None)
        self._iterations = iterations
        self.every = thinned(every, iterations, len(self.names))
        samples = math.ceil(iterations / self.every)
        self.values = torch.zeros(2 if self._trust_ratios is None else 3, len(self.names), samples, device=device)

    @contextmanager
    def sample(self, epoch: int, iteration: int) -> Iterator[None]:
        """Wrap the optimizer's step, when gradients are complete: take a sample of it if it is one of the steps to
        sample."""
        step, steps = (epoch - 1) * self._iterations + iteration, self._steps(epoch)
        if step not in steps:
            yield
            return
        number = steps.index(step)
        gradients = [self._no_gradient if p.grad is None else p.grad for p in self._parameters]
        self.values[0, :, number] = torch.stack(torch._foreach_norm(self._weights))
        self.values[1, :, number] = torch.stack(torch._foreach_norm(gradients))
        yield
        if self._trust_ratios is not None:
            ratios = self._trust_ratios()
            self.values[2, :, number] = torch.stack([ratios[place] for place in self._places])

    def record(self, epoch: int) -> LayersRecord | None:
        """The samples of `epoch`, which has just ended, brought to the host in one transfer. None when the epoch has no
        step to sample."""
        steps = self._steps(epoch)
        if not steps:
            return None
        lwn, lgn, *ratios = [
            [[_rounded(value) for value in layer] for layer in quantity]
            for quantity in self.values[:, :, : len(steps)].tolist()
        ]
        return LayersRecord(
            names=self.names,
            first_step=steps.start,
            every=self.every,
            lwn=lwn,
            lgn=lgn,
            trust_ratio=ratios[0] if ratios else None,
        )

    def _steps(self, epoch: int) -> range:
        """The steps to sample in `epoch`, counted from 0 over the whole training."""
        first = (epoch - 1) * self._iterations
        return range(math.ceil(first / self.every) * self.every, first + self._iterations, self.every)


def thinned(every: int, iterations: int, layers: int) -> int:
    """The smallest multiple of `every` at which an epoch has no more samples than a record may have."""
    return every * math.ceil(math.ceil(iterations / every) / most_samples(layers))


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
