"""What is wrong with a budget, or with a search of a job: each value at the ends of its space must make a spec."""

import itertools

from pydantic import ValidationError

from service.algorithms.epoch_plan import samples_per_epoch
from service.algorithms.search_space import KEYS, budget_samples, trial_spec
from service.errors import FieldError, InvalidInput
from service.spec.job import JobSpec
from service.spec.methods import (
    RampMethod,
    SearchMethod,
    StudyMethod,
)
from service.spec.types import MAX_BATCH
from service.validation.across_fields import check_across_fields


def check_budget(spec: JobSpec, train_samples: int) -> list[FieldError]:
    """What is wrong with a budget in samples or epochs: baselines train whole epochs, at least one."""
    epoch = samples_per_epoch(spec, train_samples)
    if spec.budget is None or spec.budget.relative_to is not None or (budget_samples(spec, epoch, None) or 0) >= epoch:
        return []
    if spec.budget.samples is not None:
        message = f"less than an epoch, which takes {epoch} samples; give that at least"
        return [FieldError("budget.samples", spec.budget.samples, message)]
    return [FieldError("budget.epochs", spec.budget.epochs, "less than an epoch; give 1 at least")]


def check_search(spec: JobSpec, number: int, method: SearchMethod, train_samples: int | None) -> list[FieldError]:
    """What is wrong with the space of `methods[number]`: each value at its ends must make a spec."""
    if isinstance(method, StudyMethod):
        return _check_study(spec, f"methods[{number}]", method, train_samples)
    if isinstance(method, RampMethod):
        return _check_ramp(spec, train_samples)
    errors = []
    for key, distribution in (method.search_space or {}).items():
        field = f"methods[{number}].search_space.{key}"
        head, _, option = key.partition(".")
        if head not in KEYS or (option and head != "optimizer"):
            known = f"{', '.join(KEYS)} and optimizer.OPTION"
            errors.append(FieldError(field, key, f"cannot be searched; use {known}"))
            continue
        if key == "global_batch_size" and distribution.choice is None:
            message = "must be a choice: not every number is a multiple of workers; list the batches to try"
            errors.append(FieldError(field, distribution.kind, message))
            continue
        for value in distribution.extremes:
            try:
                trial = trial_spec(spec, method, {key: value}, seed=spec.seed, epochs=spec.epochs)
                check_across_fields(trial)
                if train_samples is not None:
                    samples_per_epoch(trial, train_samples)
            except ValidationError as error:
                errors.append(FieldError(field, value, error.errors()[0]["msg"]))
            except InvalidInput as error:
                errors.append(FieldError(field, value, error.errors[0].message))
    return errors


def _check_ramp(spec: JobSpec, train_samples: int | None) -> list[FieldError]:
    errors = []
    if getattr(spec.optimizer, "momentum", None) is None:
        message = "has no momentum, which batch-ramp scales in its second phase; take sgd, lars or tvlars"
        errors.append(FieldError("optimizer", spec.optimizer.name, message))
    if 2 * spec.global_batch_size > (MAX_BATCH if train_samples is None else train_samples):
        message = "batch-ramp cannot double it within the training set; lower it"
        errors.append(FieldError("global_batch_size", spec.global_batch_size, message))
    return errors


def _check_study(spec: JobSpec, field: str, method: StudyMethod, train_samples: int | None) -> list[FieldError]:
    """Each of its points must make a spec; what is wrong is told once, of the batch size or the variant."""
    errors: dict[str, FieldError] = {}
    points = itertools.product(enumerate(method.batch_sizes), enumerate(method.variants))
    for (place, batch), (number, variant) in points:
        config = {"global_batch_size": batch, "variant": variant.name}
        trial = trial_spec(spec, method, config, seed=spec.seed, epochs=spec.epochs)
        try:
            check_across_fields(trial)
            if train_samples is not None:
                samples_per_epoch(trial, train_samples)
        except InvalidInput as error:
            for one in error.errors:
                if one.field == "global_batch_size":
                    where = f"{field}.batch_sizes[{place}]"
                elif one.field.startswith("methods[0]"):
                    where = f"{field}.variants[{number}].method" + one.field.removeprefix("methods[0]")
                else:
                    where = one.field
                errors.setdefault(where, FieldError(where, one.value, f"with batch {batch}: {one.message}"))
    return list(errors.values())
