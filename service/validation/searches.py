"""What is wrong with the budget or with a search of a job: each value at the ends of its space must make a spec."""

import math

from pydantic import ValidationError

from service.algorithms.epoch_plan import samples_per_epoch
from service.algorithms.search_space import budget_samples
from service.errors import FieldError, InvalidInput
from service.spec.job import JobSpec
from service.spec.methods.base import MethodSpec, Probe
from service.validation.across_fields import check_across_fields

MAX_PROBES = 1024  # of a job: what each takes is little, and a spec of 64 KiB has room for many


def check_budget(spec: JobSpec, train_samples: int) -> list[FieldError]:
    """What is wrong with the job's budget in samples or epochs: there must be room for an epoch and what a method
    searches by, and behind its warm-up for a Pre-train. `train_samples` are those that are not held out."""
    epoch, budget = samples_per_epoch(spec, train_samples), spec.budget
    if budget is None or budget.relative_to is not None:
        return []
    room, held = budget_samples(spec, epoch, None) or 0, [one for one in spec.methods if one.holds_budget(spec)]
    field, value = ("epochs", budget.epochs) if budget.samples is None else ("samples", budget.samples)
    search, label = max(((method.search_samples(spec, epoch), method.label) for method in held), default=(0, ""))
    if room >= epoch + search:
        warmups = [_warmup_alone(spec, method, epoch, room) for method in held]
        return [FieldError(f"budget.{field}", value, message) for message in warmups if message is not None]
    if search:
        what = f"the search of {label} ({search} samples) and an epoch ({epoch})"
        least = math.ceil((epoch + search) / epoch) if budget.samples is None else epoch + search
        message = f"less than {what}; give {least} at least, or let it search less"
    elif budget.samples is not None:
        message = f"less than an epoch, which takes {epoch} samples; give that at least"
    else:
        message = "less than an epoch; give 1 at least"
    return [FieldError(f"budget.{field}", value, message)]


def _warmup_alone(spec: JobSpec, method: MethodSpec, epoch: int, room: int) -> str | None:
    """What is wrong where a budget of `room` samples ends before the method's first Pre-train; `epoch` are the training
    samples of an epoch."""
    epochs = method.training_epochs(spec, epoch, room)
    first = method.first_pretrain(spec.model_copy(update={"epochs": epochs}))
    if first is None or first[0] <= epochs:
        return None
    few = f"{epochs} epoch{'s' * (epochs > 1)}"
    return f"has room for {few} of {method.label}, all of them warm-up; give more, or shorten its warm-up"


def check_search(
    spec: JobSpec, field: str, method: MethodSpec, train_samples: int | None, room: int = MAX_PROBES
) -> tuple[list[FieldError], int]:
    """Return (what is wrong with a method, whose place in the spec is `field`, as a search, how many probes are left of
    `room`): what its trials may be must make specs. A method that is no search has no errors. `train_samples` are None
    where they are not known."""
    errors: list[FieldError] = []
    told: set[str] = set()
    for probe in method.probes(spec, field, train_samples):
        if isinstance(probe, FieldError):
            errors.append(probe)
            continue
        if not room:
            message = f"with it the job has more than {MAX_PROBES} values and points to search; split it into several"
            return [FieldError(field, method.label, message)], 0
        room -= 1
        for error in _wrong_with(probe, train_samples):
            if probe.alone or error.field not in told:
                told.add(error.field)
                errors.append(error)
    return errors, room


def _wrong_with(probe: Probe, train_samples: int | None) -> list[FieldError]:
    """What is wrong with the spec that the probe makes, told of the method's fields."""
    try:
        trial = probe.trial_spec()
        check_across_fields(trial)
        if train_samples is not None:
            samples_per_epoch(trial, train_samples)
            inner = [check_search(trial, "methods[0]", one, train_samples)[0] for one in trial.methods]
            found = [error for errors in inner for error in errors]
            if found:
                raise InvalidInput(found)
    except ValidationError as error:
        return [probe.told(FieldError("", None, error.errors()[0]["msg"]))]
    except InvalidInput as error:
        return [probe.told(one) for one in (error.errors[:1] if probe.alone else error.errors)]
    return []
