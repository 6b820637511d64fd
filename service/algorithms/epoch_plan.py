"""What a spec amounts to: iterations an epoch, and how they divide into Pre-train and Main-train.

Functions of the spec and the size of its training set.
"""

from dataclasses import dataclass
from pathlib import Path

from service.errors import FieldError, InvalidInput
from service.spec.catalog import DATASETS, count_images, require_image_folder
from service.spec.data import Dataset, NamedDataset
from service.spec.job import JobSpec
from service.spec.lr_set import StagedLrSet

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
