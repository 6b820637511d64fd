"""Learning rates as pure functions of the position in a training, shared by the engine and by users' replays."""

import math
from collections.abc import Sequence

from service.algorithms.warmup_and_decay import (
    cosine_between,
    cosine_decay,
    polynomial_decay,
    step_decay,
    warmup_learning_rate,
)
from service.spec.job import JobSpec
from service.spec.methods.base import LrSchedule, Schedule
from service.spec.methods.fixed import (
    CosineLrSchedule,
    DecayingLrSchedule,
    FixedMethod,
    PolynomialLrSchedule,
    StepLrSchedule,
)
from service.spec.methods.reference import ReferenceMethod
from service.spec.methods.wsd import WsdMethod
from service.spec.optimizer import Optimizer
from service.spec.scaling import Scaling
from service.spec.types import MIN_LEARNING_RATE


def lr_factor(kind: LrSchedule, progress: float) -> float:
    """The factor on a learning rate at `progress`, from 0 (the first iteration) to 1 (after the last one)."""
    match kind:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return cosine_decay(progress, 0.0)


def warmup_factor(iteration: int, whole: int, share: float) -> float:
    """The factor on a learning rate at `iteration` (from 0) of `whole`, the first `share` of which are a linear
    warm-up; 1 behind that."""
    return min(1.0, (iteration + 1) / (round(share * whole) + 1))


def epoch_lr_factors(
    kind: LrSchedule, *, epoch: int, epochs: int, iterations: int, warmup_share: float = 0.0
) -> list[float]:
    """The factors on a learning rate, one for each of the `iterations` of `epoch` (from 1) of `epochs`, with a linear
    warm-up over the first `warmup_share` of them all."""
    first, whole = (epoch - 1) * iterations, epochs * iterations
    return [
        lr_factor(kind, iteration / whole) * warmup_factor(iteration, whole, warmup_share)
        for iteration in range(first, first + iterations)
    ]


def schedule_learning_rates(schedule: Schedule, *, epoch: int, iterations: int) -> list[float]:
    """The learning rates of a schedule, lr_schedule applied, at each of the `iterations` of `epoch` (from 1)."""
    first = (epoch - 1) * iterations
    return [schedule_learning_rate(schedule, first + iteration, iterations) for iteration in range(iterations)]


def schedule_learning_rate(schedule: Schedule, iteration: int, iterations_per_epoch: int) -> float:
    """The learning rate of a schedule, lr_schedule applied, at `iteration` (from 0) of the whole training; after its
    end that of the last iteration."""
    whole = len(schedule.learning_rates) * iterations_per_epoch
    iteration = min(iteration, whole - 1)
    epoch = iteration // iterations_per_epoch  # from 0
    if epoch < schedule.warmup_epochs:
        return schedule.learning_rates[epoch]
    factor = lr_factor(schedule.lr_schedule, iteration / whole) * warmup_factor(iteration, whole, schedule.warmup_share)
    return schedule.learning_rates[epoch] * factor


WARMUP_SHARE, START_DIVISOR, END_DIVISOR = 0.3, 25.0, 1e4  # torch's OneCycleLR: pct_start, div_factor, final_div_factor


def one_cycle(iteration: int, iterations: int) -> float:
    """The factor on the highest learning rate at `iteration` (from 0) of `iterations` in all, by torch's OneCycleLR
    with its defaults (the 1cycle policy, Smith & Topin 2018, arXiv 1708.07120)."""
    start, end = 1 / START_DIVISOR, 1 / (START_DIVISOR * END_DIVISOR)
    top, last = WARMUP_SHARE * iterations - 1, iterations - 1
    if iteration <= top:
        return cosine_between(start, 1.0, iteration / top)
    return cosine_between(1.0, end, (iteration - top) / (last - top)) if last > top else end


def one_cycle_factors(*, epoch: int, epochs: int, iterations: int) -> list[float]:
    """The factors of the 1cycle policy on the highest learning rate, one for each of the `iterations` of `epoch` (from
    1) of `epochs`."""
    done, whole = (epoch - 1) * iterations, epochs * iterations
    return [one_cycle(done + iteration, whole) for iteration in range(iterations)]


def wsd(iteration: int, iterations: int, *, warmup: float, decay: float) -> float:
    """What the highest learning rate is multiplied by at `iteration` (from 0) of `iterations` in all: a linear warm-up
    to 1 over the share `warmup` of them, then 1 (Hu et al. 2024, arXiv 2404.06395), and over the share `decay`, the
    last, the cool-down 1 - sqrt(progress) to 0 (Hägele et al. 2024, arXiv 2405.18392)."""
    rising, falling = round(warmup * iterations), round(decay * iterations)
    if iteration < rising:
        return (iteration + 1) / rising
    into_decay = iteration - (iterations - falling)
    return 1.0 - math.sqrt(into_decay / falling) if into_decay > 0 else 1.0


def wsd_factors(method: WsdMethod, *, epoch: int, epochs: int, iterations: int) -> list[float]:
    """What the highest learning rate is multiplied by at each of the `iterations` of `epoch` (from 1) of `epochs`."""
    done, whole = (epoch - 1) * iterations, epochs * iterations
    return [wsd(done + iteration, whole, warmup=method.warmup, decay=method.decay) for iteration in range(iterations)]


def reference_learning_rate(method: ReferenceMethod, val_accuracies: Sequence[float]) -> float:
    """The learning rate of the epoch after those with `val_accuracies`: that of the reference, divided by `factor` each
    time that `patience` epochs went by without a new best accuracy (STPT, Yamada et al., section III)."""
    learning_rate, best, since_best = method.learning_rate, -math.inf, 0
    for accuracy in val_accuracies:
        best, since_best = (accuracy, 0) if accuracy > best else (best, since_best + 1)
        if since_best == method.patience:
            learning_rate, since_best = max(learning_rate / method.factor, MIN_LEARNING_RATE), 0
    return learning_rate


# --- scaling to the batch ----------------------------------------------------------------------------------


def scaled_learning_rate(method: FixedMethod, spec: JobSpec) -> float:
    """The learning rate of the method `fixed`, scaled to the job's batch: its warm-up leads to it, its lr_schedule
    begins with it."""
    learning_rate = method.own_learning_rate(spec)
    return (
        learning_rate if method.scaling is None else method.scaling.learning_rate(learning_rate, spec.global_batch_size)
    )


def scaled_optimizer(scaling: Scaling | None, spec: JobSpec) -> Optimizer:
    """The job's optimizer, its momentum scaled to the batch where `scaling` asks for it. Raises ValueError where the
    optimizer has no momentum, or no momentum from 0 on fits."""
    return spec.optimizer if scaling is None else scaling.optimizer(spec.optimizer, spec.global_batch_size)


# --- the method `fixed` ------------------------------------------------------------------------------------


def fixed_learning_rates(method: FixedMethod, spec: JobSpec, *, epoch: int, iterations: int) -> list[float]:
    """The learning rates of the method `fixed` at each of the `iterations` of `epoch` (from 1) of the job's epochs: the
    warm-up, then lr_schedule over all that is left."""
    base, scaled, first = method.own_learning_rate(spec), scaled_learning_rate(method, spec), (epoch - 1) * iterations
    warmup = method.warmup
    if warmup is not None and epoch <= warmup.epochs:
        return [
            warmup_learning_rate(
                warmup.kind,
                base=base,
                scaled=scaled,
                epochs=warmup.epochs,
                iteration=iteration,
                iterations_per_epoch=iterations,
            )
            for iteration in range(first, first + iterations)
        ]
    start, end = (warmup.epochs if warmup else 0) * iterations, spec.epochs * iterations
    return [
        scaled * _decay(method.lr_schedule, (iteration - start) / (end - start))
        for iteration in range(first, first + iterations)
    ]


def _decay(lr_schedule: DecayingLrSchedule | None, progress: float) -> float:
    match lr_schedule:
        case PolynomialLrSchedule(power=power):
            return polynomial_decay(progress, power)
        case CosineLrSchedule(final=final):
            return cosine_decay(progress, final)
        case StepLrSchedule(factor=factor, milestones=milestones):
            return step_decay(progress, milestones, factor)
        case None:
            return 1.0
