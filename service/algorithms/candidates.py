"""Learning-rate sets: which candidates an epoch's Pre-train tries (STPT, Yamada et al., Tables 2 to 4)."""

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
        if epoch <= (2 * last * epochs + MIX_EPOCHS) // (2 * MIX_EPOCHS):
            return name
    raise AssertionError(f"epoch {epoch} of {epochs}")


def candidates(lr_set: LrSet, *, epoch: int, epochs: int, current: float, warmup_epochs: int = 0) -> tuple[float, ...]:
    """The learning rates to try at `epoch` (from 1) of `epochs`, in the set's order.

    Relative sets multiply the learning rate `current` and are capped; values equal after the cap become one. Stages
    count from the epoch after `warmup_epochs`.
    """
    match lr_set:
        case AbsoluteLrSet(learning_rates=values):
            return tuple(dict.fromkeys(values))
        case RelativeLrSet(factors=factors, max_learning_rate=cap):
            return relative_candidates(factors, current, cap)
        case NamedLrSet(name=name, max_learning_rate=cap):
            return relative_candidates(LR_SETS[mix_phase(epoch, epochs) if name == "mix" else name], current, cap)
        case PhasedLrSet(phases=phases):
            begun = [phase for phase in phases if phase.first_epoch <= epoch]
            phase = begun[-1] if begun else phases[0]
            return candidates(phase.lr_set, epoch=epoch, epochs=epochs, current=current)
        case StagedLrSet(stages=stages, max_learning_rate=cap):
            number = epoch - warmup_epochs - 1
            return relative_candidates(stages[number].factors if number < len(stages) else (1.0,), current, cap)
        case RaceLrSet(max_learning_rate=cap):
            return lr_set.first_looks(current) if epoch == warmup_epochs + 1 else (min(current, cap),)
        case HistoryLrSet():  # until the job is accepted
            return candidates(HISTORY_LR_SET, epoch=epoch, epochs=epochs, current=current, warmup_epochs=warmup_epochs)


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
