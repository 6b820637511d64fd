"""Learning-rate sets: which candidates an epoch's Pre-train tries (STPT, Yamada et al., Tables 2 to 4)."""

import math
from dataclasses import dataclass, replace

from service.spec.job import JobSpec
from service.spec.lr_set import (
    HISTORY_LR_SET,
    AbsoluteLrSet,
    HistoryLrSet,
    LrSet,
    NamedLrSet,
    PhasedLrSet,
    RaceLrSet,
    RelativeLrSet,
    StagedLrSet,
    relative_candidates,
)
from service.spec.methods.base import MethodSpec
from service.spec.methods.stpt import StptMethod
from service.spec.types import allowed_learning_rate

# Factors on the current learning rate, as the paper prints them.
LR_SETS: dict[str, tuple[float, ...]] = {
    "paper-alpha": (10.0, 5.0, 3.0, 1.5, 1.0, 0.9, 0.5, 0.4),  # Table 2
    "narrow": (1.25, 1.17, 1.08, 1.0, 0.95, 0.9, 0.85, 0.8),  # Table 3 (a)
    "middle": (2.5, 2.0, 1.5, 1.0, 0.85, 0.7, 0.55, 0.4),  # Table 3 (b)
    "wide": (5.0, 3.67, 2.33, 1.0, 0.8, 0.6, 0.4, 0.2),  # Table 3 (c)
}

# Table 4: the last epoch of each set in a training of 40; epochs 1-4 are warm-up.
MIX_EPOCHS = 40
MIX = ((19, "narrow"), (29, "middle"), (40, "wide"))


def mix_phase(epoch: int, epochs: int) -> str:
    """The name of the set that `mix` uses at `epoch` (from 1) of `epochs`: Table 4 of Yamada et al., its boundaries
    scaled to `epochs` and rounded."""
    for last, name in MIX:
        if epoch <= _last_of_phase(last, epochs):
            return name
    raise AssertionError(f"epoch {epoch} of {epochs}")


def _last_of_phase(last: int, epochs: int) -> int:
    return (2 * last * epochs + MIX_EPOCHS) // (2 * MIX_EPOCHS)


@dataclass(frozen=True)
class Rule:
    """How the candidates of an epoch follow from the learning rate that it begins with: it times each factor, capped at
    `cap`; or without a cap, the same `values` whatever it is."""

    values: tuple[float, ...]
    cap: float | None = None

    def candidates(self, current: float) -> tuple[float, ...]:
        """The learning rates to try from `current`, in the set's order; values that are equal, perhaps after the cap,
        become one."""
        if self.cap is None:
            return tuple(dict.fromkeys(self.values))
        return relative_candidates(self.values, current, self.cap)

    def narrowed(self) -> "Rule":
        """The rule of the smallest and the largest candidate alone."""
        return replace(self, values=(min(self.values), max(self.values)))

    def reach(self, low: float, high: float, epochs: int) -> tuple[float, float]:
        """The smallest and the largest candidate of the last of so many `epochs`, one at least, that follow this rule,
        when the first of them begins between `low` and `high`, whatever is chosen."""
        smallest, largest = min(self.values), max(self.values)
        if self.cap is None:
            return smallest, largest
        return _after(low, smallest, self.cap, epochs), _after(high, largest, self.cap, epochs)


def _after(current: float, factor: float, cap: float, epochs: int) -> float:
    """The learning rate `current` after so many epochs that each multiply it by `factor`, capped at `cap`."""
    first = allowed_learning_rate(current * factor, cap)  # from here on it only falls, or rises, or stays
    try:
        power = factor ** (epochs - 1)
    except OverflowError:
        power = math.inf
    return allowed_learning_rate(first * power, cap)


def rule_of(lr_set: LrSet, *, epoch: int, epochs: int, warmup_epochs: int = 0) -> Rule:
    """The rule of the set at `epoch` (from 1) of `epochs`. Stages and races count from the epoch after
    `warmup_epochs`."""
    match lr_set:
        case AbsoluteLrSet(learning_rates=values):
            return Rule(tuple(values))
        case RelativeLrSet(factors=factors, max_learning_rate=cap):
            return Rule(tuple(factors), cap)
        case NamedLrSet(name=name, max_learning_rate=cap):
            return Rule(LR_SETS[mix_phase(epoch, epochs) if name == "mix" else name], cap)
        case PhasedLrSet(phases=phases):
            begun = [phase for phase in phases if phase.first_epoch <= epoch]
            phase = begun[-1] if begun else phases[0]
            return rule_of(phase.lr_set, epoch=epoch, epochs=epochs)
        case StagedLrSet(stages=stages, max_learning_rate=cap):
            number = epoch - warmup_epochs - 1
            return Rule(tuple(stages[number].factors) if number < len(stages) else (1.0,), cap)
        case RaceLrSet(factors=factors, max_learning_rate=cap):
            return Rule(tuple(factors) if epoch == warmup_epochs + 1 else (1.0,), cap)
        case HistoryLrSet():  # until the job is accepted
            return rule_of(HISTORY_LR_SET, epoch=epoch, epochs=epochs, warmup_epochs=warmup_epochs)


def _turns(lr_set: LrSet, epochs: int, warmup_epochs: int) -> list[int]:
    """The epochs (from 1) of `epochs` at which the rule of the set may change, in no order."""
    match lr_set:
        case NamedLrSet(name="mix"):
            return [_last_of_phase(last, epochs) + 1 for last, _ in MIX]
        case PhasedLrSet(phases=phases):
            inner = [turn for phase in phases for turn in _turns(phase.lr_set, epochs, 0)]
            return [*(phase.first_epoch for phase in phases), *inner]
        case StagedLrSet(stages=stages):
            return [warmup_epochs + number for number in range(1, len(stages) + 2)]
        case RaceLrSet():
            return [warmup_epochs + 1, warmup_epochs + 2]
        case HistoryLrSet():
            return _turns(HISTORY_LR_SET, epochs, warmup_epochs)
        case _:
            return []


def rules(spec: JobSpec, method: StptMethod, first: int, last: int) -> list[tuple[int, int, Rule]]:
    """The rules that a run of stpt follows from epoch `first`, which is behind its warm-up, to epoch `last`: each with
    the first and the last epoch that it holds for. There are no more than the set has parts, however many epochs."""
    lr_set, warmup_epochs = method.candidates_of(spec), method.warmup_epochs(spec.epochs)
    epochs = max(last, spec.epochs)
    begins = sorted({first, *(turn for turn in _turns(lr_set, epochs, warmup_epochs) if first < turn <= last)})
    ends = [*(begin - 1 for begin in begins[1:]), last]
    return [
        (begin, end, rule_of(lr_set, epoch=begin, epochs=epochs, warmup_epochs=warmup_epochs))
        for begin, end in zip(begins, ends, strict=True)
        if begin <= end
    ]


def candidates(lr_set: LrSet, *, epoch: int, epochs: int, current: float, warmup_epochs: int = 0) -> tuple[float, ...]:
    """The learning rates to try at `epoch` (from 1) of `epochs`, in the set's order.

    Relative sets multiply the learning rate `current` and are capped; values equal after the cap become one. Stages
    count from the epoch after `warmup_epochs`.
    """
    return rule_of(lr_set, epoch=epoch, epochs=epochs, warmup_epochs=warmup_epochs).candidates(current)


def epoch_candidates(spec: JobSpec, method: StptMethod, *, epoch: int, current: float) -> tuple[float, ...]:
    """The learning rates that a run of stpt tries at `epoch` (from 1), which is behind its warm-up, when the learning
    rate is `current`."""
    return candidates(
        method.candidates_of(spec),
        epoch=epoch,
        epochs=max(epoch, spec.epochs),
        current=current,
        warmup_epochs=method.warmup_epochs(spec.epochs),
    )


def first_candidates(spec: JobSpec) -> tuple[float, ...]:
    """The learning rates that everything that searches goes over: those that the job's lr_set tries at the job's first
    Pre-train, or without one at its first epoch, from the initial learning rate."""
    known = (method.first_pretrain(spec) for method in spec.methods)
    epoch, start = next((first for first in known if first is not None), (1, spec.initial_learning_rate))
    epochs = max(epoch, spec.epochs)
    return candidates(spec.lr_set, epoch=epoch, epochs=epochs, current=start, warmup_epochs=epoch - 1)


def trials_of(spec: JobSpec, method: MethodSpec) -> int:
    """The number of trainings that a method of the job takes with one seed; 0 for a search, which decides as it
    goes."""
    return method.trainings(first_candidates(spec))
