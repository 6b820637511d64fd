"""How long an epoch is: the training samples of a dataset, and the iterations over them, a batch each."""

from pathlib import Path

from service.errors import FieldError, InvalidInput
from service.spec.catalog import DATASETS
from service.spec.data import Dataset, NamedDataset
from service.spec.data_folder import count_images, require_image_folder
from service.spec.job import JobSpec


def split_sizes(train_samples: int, validation_fraction: float) -> tuple[int, int]:
    """Split `train_samples` into (training samples left, validation samples held out); at least one is held out."""
    held_out = max(1, round(train_samples * validation_fraction))
    return train_samples - held_out, held_out


def known_train_samples(spec: JobSpec) -> int | None:
    """The training samples of the job's dataset after the validation split; None for one whose files must be looked at
    first. Raises InvalidInput where it has fewer than the spec asks for."""
    return count_train_samples(spec.dataset, Path()) if isinstance(spec.dataset, NamedDataset) else None


def count_train_samples(dataset: Dataset, data_dir: Path) -> int:
    """The training samples of a dataset after the validation split; those of a folder are counted by its files' names.
    Raises DatasetMissing where the folder is absent, and InvalidInput where there are fewer than are asked for."""
    if isinstance(dataset, NamedDataset):
        samples = DATASETS[dataset.name].train_samples
    else:
        samples = count_images(require_image_folder(dataset.path, data_dir) / "train", data_dir)
    left, _ = split_sizes(samples, dataset.validation_fraction)
    wanted = dataset.train_samples
    if wanted is not None and wanted > left:
        message = f"the training set has {left} samples that are not held out; lower it, or leave it out"
        raise InvalidInput([FieldError("dataset.train_samples", wanted, message)])
    return left if wanted is None else wanted


def iterations_per_epoch(spec: JobSpec, train_samples: int) -> int:
    """Iterations (batches of `global_batch_size` samples) of one epoch over `train_samples` samples; an incomplete last
    batch is left out. Raises InvalidInput where there is no whole one."""
    if iterations := train_samples // spec.global_batch_size:
        return iterations
    message = f"the training set has {train_samples} samples, less than one batch; choose a smaller batch"
    raise InvalidInput([FieldError("global_batch_size", spec.global_batch_size, message)])


def samples_per_epoch(spec: JobSpec, train_samples: int) -> int:
    """The training samples that one model takes in an epoch, without search: its whole batches. Raises InvalidInput
    where there is no whole one."""
    return iterations_per_epoch(spec, train_samples) * spec.global_batch_size
