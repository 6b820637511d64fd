"""The plain loop that every method shares: steps and evaluation. Runs without Ray.

The unit of work is a microbatch: one worker's share of the global batch, b = B / n samples. An iteration over the
global batch is always the same n microbatches, whether n workers take one each or one worker takes all of them in
turn (gradient accumulation), so that batch normalisation sees b samples, and gradients agree, in every placement.
A microbatch larger than `microbatch_size` takes several forward passes; batch normalisation then sees those of a pass.

Batches and random numbers (dropout) are functions of (seed, epoch, iteration, microbatch): branches of one epoch see
common random numbers, and a training can begin again anywhere.

What an iteration does with its microbatches is the task's (workers/tasks/): classification has a loss for each of them,
Barlow Twins one for all that the group's workers hold together.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from service.spec.job import JobSpec
from workers.engine import progress
from workers.engine.groups import Group, Workers
from workers.engine.layer_norms import Collector
from workers.engine.optimizer import is_averaging, set_learning_rate
from workers.engine.protocols import Dataset, Microbatch, Samples, Task
from workers.engine.seeds import derived_seed
from workers.engine.state import Average, Flat, training_state

STATISTICS_SAMPLES = 2048  # of each worker: enough for means and variances of channels
STATISTICS_BATCHES = 50  # an exponential average with momentum 0.1 has forgotten what was before
MAX_DECODED_BYTES = 4 * 2**30  # of images of one Pre-train that a worker keeps for its next branch


@dataclass(frozen=True)
class Measurement:
    """The loss and the correct answers of a pass, as sums over `samples` samples; `loss_sum` is not finite when the
    training diverged."""

    loss_sum: float
    correct: float
    samples: int

    @property
    def loss(self) -> float:
        """The mean loss of a sample; NaN where there is none."""
        return self.loss_sum / self.samples if self.samples else float("nan")

    @property
    def accuracy(self) -> float:
        """The share of samples that are classified correctly; NaN where there is none."""
        return self.correct / self.samples if self.samples else float("nan")

    @property
    def is_finite(self) -> bool:
        """Whether the loss is a finite number: it is not once the training has diverged."""
        return math.isfinite(self.loss)

    def __add__(self, other: "Measurement") -> "Measurement":
        return Measurement(self.loss_sum + other.loss_sum, self.correct + other.correct, self.samples + other.samples)


class Trainer:
    """One model in training on this worker. All workers of the world call the same methods in the same order."""

    def __init__(
        self,
        spec: JobSpec,
        data: Dataset,
        workers: Workers,
        *,
        model: nn.Module,
        task: Task,
        optimizer: torch.optim.Optimizer,
        iterations: int,
    ) -> None:
        """Train `model`, which lies on the workers' device before its first step, by `optimizer`, which has its
        parameters in their order. An epoch has so many `iterations`. Of `spec` the batch, the seed, the precision and
        the telemetry are read."""
        self.spec, self.data, self.workers = spec, data, workers
        self.model, self.task, self.optimizer, self.iterations = model, task, optimizer, iterations
        self.replica = workers.replicate(model)
        self.tensors = training_state(model, optimizer)
        self.telemetry: Collector | None = None
        samples: list[Tensor] = []
        if spec.telemetry is not None:
            every = spec.telemetry.every
            self.telemetry = Collector(model, optimizer, iterations=iterations, every=every, device=workers.device)
            samples = [self.telemetry.values]
        self.state = Flat([*self.tensors.values(), *samples], workers.device)  # of a checkpoint only the former
        self._buffers = Flat(list(model.buffers()), workers.device)
        on_gpu = workers.device.type == "cuda"
        self._bfloat16 = spec.precision == "bfloat16" or (spec.precision == "auto" and on_gpu)
        # samples of each forward pass over a microbatch
        self._passes = [range(end - size, end) for size, end in zip(spec.passes, accumulate(spec.passes), strict=True)]
        self.samples_seen = 0  # by this worker, in training: what records say is checked against it
        self.kept = 0  # iterations of an epoch, from its first, that come again: those of a Pre-train
        self._decoded: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def train(
        self,
        epoch: int,
        iterations: range,
        learning_rates: Sequence[float],  # of each of the iterations
        group: Group,
        microbatches: int,
        average: Average | None = None,
        averaged_from: int = 0,
    ) -> Measurement:
        """Train `iterations` of `epoch` in `group`, each on the first `microbatches` microbatches of its global batch.

        Returns the measurement of the forward passes that trained, summed over the group. `average` takes in the
        weights after each iteration from number `averaged_from` on.
        """
        self._train_mode()
        order = self._order(epoch)
        sums = torch.zeros(3, dtype=torch.float64, device=self.workers.device)
        for iteration, learning_rate in zip(iterations, learning_rates, strict=True):
            set_learning_rate(self.optimizer, learning_rate)
            self._step(epoch, iteration, order, group, microbatches, sums)
            if average is not None and iteration >= averaged_from:
                average.add()
        self.share_buffers(group)
        return _measurement(group.sum_(sums))

    def poll(
        self,
        epoch: int,
        iteration: int,
        learning_rates: Sequence[float],
        group: Group,
        microbatches: int,
        key: Callable[[Measurement], float],
    ) -> tuple[float, Measurement]:
        """Train `iteration` of `epoch` as `train` does, at that one of `learning_rates` behind whose step the batch has
        the least `key`; on a tie, and where no key is finite, at the first one.

        Returns the learning rate that was chosen, and the measurement of the forward passes that trained. The gradient
        is computed once. Every learning rate takes its step from the same weights and optimizer state, and is measured
        by further forward passes in training mode, which leave the running statistics as they are.
        """
        self._train_mode()
        order = self._order(epoch)
        sums = torch.zeros(3, dtype=torch.float64, device=self.workers.device)
        self._gradients(epoch, iteration, order, group, microbatches, sums)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        undo = Flat([*self.state.tensors, *gradients], self.workers.device)  # fused steps may write into gradients
        start = undo.save(undo.empty())
        best, least = learning_rates[0], math.inf
        for learning_rate in learning_rates:
            set_learning_rate(self.optimizer, learning_rate)
            self.optimizer.step()
            tried = torch.zeros_like(sums)
            with torch.no_grad(), frozen_statistics(self.model):
                for numbers, part in self._passes_of(group, microbatches):
                    tried += _sums(*self._loss(epoch, iteration, numbers, part, order, group, self.model))
            if math.isfinite(value := key(_measurement(group.sum_(tried)))) and value < least:
                best, least = learning_rate, value
            undo.load(start)
        set_learning_rate(self.optimizer, best)
        self._take_step(epoch, iteration)
        self.share_buffers(group)
        return best, _measurement(group.sum_(sums))

    def share_buffers(self, group: Group) -> None:
        """Set the running statistics to those of the group's first worker, as DistributedDataParallel does."""
        if self._buffers.nbytes and group.size > 1:
            self._buffers.load(group.broadcast_(self._buffers.save(self._buffers.empty()), group.ranks[0]))

    def _step(self, epoch: int, iteration: int, order: Tensor, group: Group, microbatches: int, sums: Tensor) -> None:
        self._gradients(epoch, iteration, order, group, microbatches, sums)
        self._take_step(epoch, iteration)

    def _take_step(self, epoch: int, iteration: int) -> None:
        with self.telemetry.sample(epoch, iteration) if self.telemetry is not None else nullcontext():
            self.optimizer.step()

    def _gradients(
        self, epoch: int, iteration: int, order: Tensor, group: Group, microbatches: int, sums: Tensor
    ) -> None:
        """Compute the gradient of an iteration, the same on every worker of the group, and add to `sums` what its
        forward passes measured."""
        # DDP averages over the world during backward; every other case sums over its group afterwards.
        by_world = group.size == microbatches == self.workers.size
        ddp = self.replica if isinstance(self.replica, DistributedDataParallel) and by_world else None
        self.optimizer.zero_grad()
        size = self.spec.batch_per_worker
        # A joint loss is the whole group's on every worker: their gradients add up to as many times its own.
        losses = group.size if self.task.joint else microbatches
        for numbers, part in self._passes_of(group, microbatches):
            with ExitStack() as stack:
                if numbers[0] or part.start:
                    stack.enter_context(frozen_statistics(self.model))
                if ddp is not None and part.stop < size:  # workers exchange the sum of all passes, once
                    stack.enter_context(ddp.no_sync())
                loss, correct, samples = self._loss(epoch, iteration, numbers, part, order, group, ddp or self.model)
                # the mean over a pass, as its part of that over all
                (loss / ((losses if ddp is None else 1) * size / len(part))).backward()
            with torch.no_grad():
                sums += _sums(loss, correct, samples)
        if ddp is None:
            group.sum_gradients(self.model.parameters())

    def _passes_of(self, group: Group, microbatches: int) -> list[tuple[list[int], range]]:
        """This worker's forward passes of an iteration: for each one the numbers of its microbatches, and which samples
        of them it takes."""
        mine = range(group.position, microbatches, group.size)
        if self.task.joint:
            return [(list(mine), range(self.spec.batch_per_worker))]
        return [([number], part) for number in mine for part in self._passes]

    def _loss(
        self,
        epoch: int,
        iteration: int,
        numbers: Sequence[int],
        part: range,
        order: Tensor,
        group: Group,
        model: nn.Module,
    ) -> tuple[Tensor, Tensor, int]:
        """Run one forward pass in training mode. Returns its mean loss, how many of its samples are classified
        correctly, and how many it has; these count as seen."""
        images, labels = self._inputs(epoch, iteration, numbers, part, order)
        if not part.start:
            torch.manual_seed(derived_seed(self.spec.seed, epoch, iteration, numbers[0]))
        with self._autocast():
            loss, correct = self.task.loss(model, images, labels, group)
        self.samples_seen += len(labels)
        progress.advance()
        return loss, correct, len(labels)

    def _inputs(
        self, epoch: int, iteration: int, numbers: Sequence[int], part: range, order: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The model's input for this part of these microbatches, and their labels, both on the device."""
        return self.task.inputs([self._microbatch(epoch, iteration, number, part, order) for number in numbers])

    def _microbatch(self, epoch: int, iteration: int, number: int, part: range, order: Tensor) -> Microbatch:
        """This part of a microbatch, on the device where its images lie. What a Pre-train needs is decoded, and drawn,
        once for all its branches."""
        split = self.data.train
        first = iteration * self.spec.global_batch_size + number * self.spec.batch_per_worker
        key = (epoch, iteration, number, part.start)
        if (decoded := self._decoded.get(key)) is None:
            samples = split.read(order[first + part.start : first + part.stop])
            decoded = self.task.drawn(epoch, iteration, number, samples)
            takes_time = self.task.draws or not split.in_memory
            if takes_time and iteration < self.kept:
                if self._decoded and next(iter(self._decoded))[0] != epoch:
                    self._decoded.clear()
                if (len(self._decoded) + 1) * decoded[0].nbytes <= MAX_DECODED_BYTES:
                    self._decoded[key] = decoded
        return decoded

    @property
    def has_batch_norm(self) -> bool:
        """Whether batch normalisation is part of the model."""
        return any(isinstance(module, _BatchNorm) for module in self.model.modules())

    def _train_mode(self) -> None:
        self.model.train()
        if is_averaging(self.optimizer):
            self.optimizer.train()  # type: ignore[attr-defined]

    def _eval_mode(self) -> None:
        self.model.eval()
        if is_averaging(self.optimizer):
            self.optimizer.eval()  # type: ignore[attr-defined]

    def refresh_statistics(self, epoch: int, group: Group) -> None:
        """Measure anew the running statistics of the averaged weights that Schedule-Free and DoG are judged by, which
        are others than they train. Does nothing for other optimizers."""
        if is_averaging(self.optimizer):
            self._measure_statistics(epoch, STATISTICS_BATCHES, group)

    @property
    def refreshing_samples(self) -> int:
        """How many training samples `refresh_statistics` takes: those of one worker, whose statistics count."""
        return self._measured_samples(STATISTICS_BATCHES) if is_averaging(self.optimizer) else 0

    def estimate_statistics(self, epoch: int, group: Group) -> None:
        """Replace the running statistics by the mean over some batches of `epoch` at the weights at hand, as torch's
        `update_bn` does: those of training lag behind by some ten iterations, which is all that a short look has."""
        layers = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all batches alike
        self._measure_statistics(epoch, math.ceil(STATISTICS_SAMPLES / self.spec.batch_per_worker), group)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

    @property
    def estimating_samples(self) -> int:
        """How many training samples `estimate_statistics` takes: those of one worker, whose statistics count."""
        return self._measured_samples(math.ceil(STATISTICS_SAMPLES / self.spec.batch_per_worker))

    def _measured_samples(self, batches: int) -> int:
        return min(self.iterations, batches) * len(self._passes[0]) if self.has_batch_norm else 0

    @torch.no_grad()
    def _measure_statistics(self, epoch: int, batches: int, group: Group) -> None:
        """Take running statistics from the first so many batches of `epoch`, one for each worker of the group; those of
        its first worker count."""
        if not self.has_batch_norm:
            return
        self._eval_mode()
        self.model.train()
        order = self._order(epoch)
        for iteration in range(min(self.iterations, batches)):
            images, labels = self._inputs(epoch, iteration, [group.position], self._passes[0], order)
            with self._autocast():
                self.task.loss(self.model, images, labels, group)
        self.share_buffers(group)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.workers.device.type, torch.bfloat16, enabled=self._bfloat16)

    @torch.no_grad()
    def evaluate(self, split: Samples, group: Group, *, accuracy: bool = True) -> Measurement:
        """Measure the loss on a split, and the accuracy if asked for; the samples are shared out over the group."""
        self._eval_mode()
        with self._autocast():
            return _measurement(group.sum_(self.task.evaluate(self.model, split, group, accuracy=accuracy)))

    @torch.no_grad()
    def test(self, group: Group) -> Measurement:
        """Measure the accuracy on the test split; the loss may be another one than that of `evaluate`."""
        self._eval_mode()
        with self._autocast():
            return _measurement(group.sum_(self.task.test(self.model, self.data.test, group)))

    def evaluation_samples(self, split: Samples, *, accuracy: bool = True) -> int:
        """How many samples an evaluation of `split` takes, the training samples of a probe counted with them."""
        return len(split) + (self.task.probe_samples if accuracy else 0)

    def _order(self, epoch: int) -> Tensor:
        """The epoch's permutation of the training samples, int64 [samples]."""
        generator = torch.Generator().manual_seed(derived_seed(self.spec.seed, epoch))
        return torch.randperm(len(self.data.train), generator=generator)


def _sums(loss: Tensor, correct: Tensor, samples: int) -> Tensor:
    """Float64 [loss, correct, samples], summed over the samples of a forward pass whose mean loss is `loss`."""
    return torch.stack([loss.double() * samples, correct.double(), correct.new_tensor(samples).double()])


def _measurement(sums: Tensor) -> Measurement:
    loss_sum, correct, samples = sums.tolist()
    return Measurement(loss_sum, correct, int(samples))


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, batch normalisation goes by the batch at hand, as in training, but does not update the running
    statistics.

    An iteration updates them once, from the first forward pass of its first microbatch, as the first worker of a
    data-parallel group does.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
