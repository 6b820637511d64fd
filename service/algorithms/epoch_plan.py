"""What a spec amounts to: iterations an epoch, and how they divide into Pre-train and Main-train.

Functions of the spec and the size of its training set.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from service.algorithms.lr_schedules import scaled_learning_rate, scaled_optimizer
from service.errors import FieldError, InvalidInput
from service.spec.catalog import BACKBONES, DATASETS, count_images, image_sizes, require_image_folder
from service.spec.job import (
    AbsoluteLrSet,
    Dataset,
    FolderDataset,
    HistoryLrSet,
    JobSpec,
    NamedDataset,
    ScheduledLrSet,
    StagedLrSet,
)
from service.spec.methods import ReplayMethod, Scaling, ScheduleMethod, SearchMethod, StptMethod
from service.spec.optimizer import TvlarsOptimizer
from service.spec.task import BarlowTwinsTask
from service.spec.types import MAX_LEARNING_RATE

PRETRAIN_SHARE = 200 / 2500  # S1: alpha = 200 of the 2500 iterations of an epoch


@dataclass(frozen=True)
class EpochPlan:
    """Iterations (batches of `global_batch_size` samples) of one epoch; pretrain + main_train <= epoch."""

    iterations_per_epoch: int
    pretrain_iterations: int  # alpha
    main_train_iterations: int  # beta

    @property
    def iterations(self) -> int:
        """That a model is trained in an epoch, with search or without."""
        return self.pretrain_iterations + self.main_train_iterations


def split_sizes(train_samples: int, validation_fraction: float) -> tuple[int, int]:
    """(training samples left, validation samples held out); at least one is held out."""
    held_out = max(1, round(train_samples * validation_fraction))
    return train_samples - held_out, held_out


def known_train_samples(spec: JobSpec) -> int | None:
    """Training samples after the validation split; None for a dataset that must be looked at first. Raises
    InvalidInput."""
    return count_train_samples(spec.dataset, Path()) if isinstance(spec.dataset, NamedDataset) else None


def count_train_samples(dataset: Dataset, data_dir: Path) -> int:
    """The same of any dataset, by looking at its files' names. Raises DatasetMissing, and InvalidInput where it has
    fewer than are asked for."""
    if isinstance(dataset, NamedDataset):
        samples = DATASETS[dataset.name].train_samples
    else:
        samples = count_images(require_image_folder(dataset.path, data_dir) / "train")
    left, _ = split_sizes(samples, dataset.validation_fraction)
    wanted = dataset.train_samples
    if wanted is not None and wanted > left:
        message = f"the training set has {left} samples that are not held out; lower it, or leave it out"
        raise InvalidInput([FieldError("dataset.train_samples", wanted, message)])
    return left if wanted is None else wanted


def plan_epoch(spec: JobSpec, train_samples: int) -> EpochPlan:
    """The epoch of `spec` over `train_samples` samples; an incomplete last batch is left out. Raises InvalidInput."""
    iterations = train_samples // spec.global_batch_size
    if iterations == 0:
        raise InvalidInput(
            [
                FieldError(
                    "global_batch_size",
                    spec.global_batch_size,
                    f"the training set has {train_samples} samples, less than one batch; choose a smaller batch",
                )
            ]
        )
    alpha = spec.pretrain.iterations or max(1, round(PRETRAIN_SHARE * iterations))
    beta = spec.main_train.iterations
    if alpha + (beta or 0) > iterations:
        field, value = ("pretrain.iterations", alpha) if beta is None else ("main_train.iterations", beta)
        raise InvalidInput(
            [
                FieldError(
                    field,
                    value,
                    f"Pre-train ({alpha}) and Main-train ({beta or 0}) may take one epoch at most, which is "
                    f"{iterations} iterations ({train_samples} samples / batch {spec.global_batch_size}); lower one",
                )
            ]
        )
    return EpochPlan(iterations, alpha, iterations - alpha if beta is None else beta)


def samples_per_epoch(spec: JobSpec, train_samples: int) -> int:
    """Training samples that one model takes in an epoch, without search. Raises InvalidInput."""
    return plan_epoch(spec, train_samples).iterations * spec.global_batch_size


def pretrain_iterations(spec: JobSpec, plan: EpochPlan, epoch: int) -> int:
    """alpha of `epoch`, which is behind the warm-up."""
    if isinstance(spec.lr_set, StagedLrSet) and (number := epoch - spec.warmup_epochs - 1) < len(spec.lr_set.stages):
        share = spec.lr_set.stages[number].pretrain_share
        return plan.pretrain_iterations if share is None else max(1, round(share * plan.iterations))
    return plan.pretrain_iterations


def check_across_fields(spec: JobSpec) -> None:
    """What no single field can tell. Raises InvalidInput with one entry a wrong field."""
    errors = []
    if spec.global_batch_size % spec.workers:
        message = f"must be a multiple of workers ({spec.workers}), so that every worker takes the same share"
        errors.append(FieldError("global_batch_size", spec.global_batch_size, message))
    else:
        errors += _image_errors(spec)
    if spec.warmup_epochs > spec.epochs:
        message = f"longer than the whole training ({spec.epochs} epochs); lower it or raise epochs"
        errors.append(FieldError("warmup.epochs", spec.warmup_epochs, message))
    if isinstance(spec.lr_set, ScheduledLrSet):
        first = spec.lr_set.phases[0].first_epoch
        if first > spec.warmup_epochs + 1:
            message = f"epochs {spec.warmup_epochs + 1} to {first - 1} have no set; begin at {spec.warmup_epochs + 1}"
            errors.append(FieldError("lr_set.phases[0].first_epoch", first, message))
    if spec.pretrain.batch == "per_worker" and spec.pretrain.placement == "sequential":
        message = (
            "a sequential branch runs on all workers, its batch is the global one; use 'global', or placement 'split'"
        )
        errors.append(FieldError("pretrain.batch", "per_worker", message))
    if isinstance(spec.task, BarlowTwinsTask):
        errors += _check_barlow_twins(spec)
    for number, method in enumerate(spec.methods):
        if isinstance(method, ReplayMethod) and method.schedule and len(method.schedule.learning_rates) != spec.epochs:
            field, rates = f"methods[{number}].schedule.learning_rates", len(method.schedule.learning_rates)
            message = f"has {rates} epochs, the job {spec.epochs}; set epochs to {rates}"
            errors.append(FieldError(field, rates, message))
        if isinstance(method, ScheduleMethod):
            errors.extend(_check_warmup(spec, f"methods[{number}].warmup", method))
        if isinstance(method, ScheduleMethod | StptMethod) and method.scaling is not None:
            errors.extend(_check_scaling(spec, f"methods[{number}].scaling", method, method.scaling))
    if isinstance(spec.optimizer, TvlarsOptimizer):
        errors += _check_tvlars(spec.optimizer)
    if spec.telemetry is not None and all(isinstance(method, SearchMethod) for method in spec.methods):
        message = "trials of searches and studies have none; leave it out, or add a training to methods, such as stpt"
        errors.append(FieldError("telemetry.every", spec.telemetry.every, message))
    relative_to = spec.budget and spec.budget.relative_to
    if relative_to and relative_to not in [method.name for method in spec.methods]:
        message = f"the job has no run of {relative_to}; add it to methods, or give budget.samples or budget.epochs"
        errors.append(FieldError("budget.relative_to", relative_to, message))
    try:
        if (train_samples := known_train_samples(spec)) is not None:
            plan_epoch(spec, train_samples)
    except InvalidInput as error:
        errors.extend(error.errors)
    if errors:
        raise InvalidInput(errors)


def _image_errors(spec: JobSpec) -> list[FieldError]:
    """Why the model cannot take the dataset's images, as many as come to it at once."""
    dataset, sizes = spec.dataset, image_sizes(spec.model)
    size = dataset.image_size if isinstance(dataset, FolderDataset) else DATASETS[dataset.name].image_size
    if size < sizes.least or size % sizes.step:
        wanted = f"{sizes.least} pixels or more" if sizes.step == 1 else f"a multiple of {sizes.step} pixels"
        message = (
            f"takes images of {wanted}, and those of {dataset.name} have {size}; choose a model for small images "
            "(lenet5, resnet18-cifar) or a dataset with other images (image-folder has image_size)"
        )
        return [FieldError("model", spec.model, message)]
    if size >= sizes.lone:
        return []
    few = f"too little for the batch normalisation of {spec.model} at {size} pixels"
    if spec.batch_per_worker == 1:
        message = f"one sample a worker is {few}; raise it to {2 * spec.workers}, or lower workers"
        return [FieldError("global_batch_size", spec.global_batch_size, message)]
    if spec.passes[-1] == 1:
        message = f"leaves a forward pass with one sample, which is {few}; raise it"
        return [FieldError("microbatch_size", spec.microbatch_size, message)]
    return []


def _check_warmup(spec: JobSpec, field: str, method: ScheduleMethod) -> list[FieldError]:
    errors, warmup = [], method.warmup
    if warmup is not None and warmup.epochs > spec.epochs:
        message = f"longer than the whole training ({spec.epochs} epochs); lower it or raise epochs"
        errors.append(FieldError(f"{field}.epochs", warmup.epochs, message))
    if warmup is not None and warmup.kind != "linear" and not _leads_up(method.scaling):
        message = "leads from the learning rate before scaling to the scaled one, and none is scaled; give scaling, "
        errors.append(FieldError(f"{field}.kind", warmup.kind, message + "of the learning rate, or kind linear"))
    return errors


def _leads_up(scaling: Scaling | None) -> bool:
    """Whether there is a learning rate before scaling and one behind it; at the base batch they are the same."""
    return scaling is not None and not scaling.momentum and scaling.rule != "none"


def _check_scaling(
    spec: JobSpec, field: str, method: ScheduleMethod | StptMethod, scaling: Scaling
) -> list[FieldError]:
    errors = []
    try:
        scaled_optimizer(method, spec)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        errors.append(FieldError(f"{field}.momentum", True, message))
    except ValueError as error:
        errors.append(FieldError(f"{field}.momentum", True, str(error)))
    if not 0 < (learning_rate := scaled_learning_rate(method, spec)) <= MAX_LEARNING_RATE:
        message = f"the scaled learning rate is {learning_rate:g}; it must be above 0 and at most 1e6"
        errors.append(FieldError(f"{field}.rule", scaling.rule, message))
    if (
        isinstance(method, StptMethod)
        and not scaling.momentum
        and isinstance(spec.lr_set, AbsoluteLrSet | HistoryLrSet)
    ):
        why = "are absolute" if isinstance(spec.lr_set, AbsoluteLrSet) else "of the history are for this batch already"
        message = f"the learning rates of lr_set {why}; leave scaling out, or give lr_set factors"
        errors.append(FieldError(f"{field}.rule", scaling.rule, message))
    return errors


def _check_tvlars(optimizer: TvlarsOptimizer) -> list[FieldError]:
    size = optimizer.base_batch_size
    other = "variant reference_code" if optimizer.variant == "reference_code" else "minimum"
    if size == TvlarsOptimizer.model_fields["base_batch_size"].default or (
        optimizer.variant == "paper" and optimizer.minimum is None
    ):
        return []
    message = f"is for a minimum by the batch, which {other} leaves none; leave one of them out"
    return [FieldError("optimizer.base_batch_size", size, message)]


def _check_barlow_twins(spec: JobSpec) -> list[FieldError]:
    errors = []
    if spec.model not in BACKBONES:
        message = (
            "barlow-twins trains what stands before a single last layer: choose lenet5, lenet5-bn, or a model whose "
            "name begins with resnet, resnext or wide_resnet"
        )
        errors.append(FieldError("model", spec.model, message))
    if spec.metric == "train_accuracy":
        message = "barlow-twins trains without labels; use val_loss, or val_accuracy, which is the probe's"
        errors.append(FieldError("metric", spec.metric, message))
    if spec.pretrain.batch == "per_worker":
        message = "the loss of barlow-twins is that of a whole batch, and another one for a smaller batch; use global"
        errors.append(FieldError("pretrain.batch", "per_worker", message))
    if spec.global_batch_size == 1:
        message = "barlow-twins correlates over a batch; use 2 or more"
        errors.append(FieldError("global_batch_size", 1, message))
    if spec.microbatch_size is not None:
        message = "the loss of barlow-twins is that of a whole batch, in one pass; leave it out"
        errors.append(FieldError("microbatch_size", spec.microbatch_size, message))
    return errors
