"""Whether a job can run here: its dataset's files, and the workers that the cluster has."""

from dataclasses import dataclass
from pathlib import Path

from service.algorithms.epoch_plan import count_train_samples, iterations_per_epoch
from service.errors import (
    DatasetMissing,
    FieldError,
    InvalidInput,
    NotEnoughWorkers,
)
from service.spec.catalog import require_files
from service.spec.data import FolderDataset
from service.spec.job import JobSpec
from service.validation.door import check_searches


@dataclass(frozen=True)
class Means:
    """What the service knows of where a job will run. `data_dir` is the folder of the datasets, which the workers see
    as well if `data_is_local`; `cpus` and `gpus` are those of the whole cluster, None while Ray has not answered."""

    data_dir: Path
    data_is_local: bool = True
    cpus: float | None = None
    gpus: float | None = None


def check_means(spec: JobSpec, means: Means) -> None:
    """Check that the job's dataset is there and the cluster large enough, as far as either is known. Raises
    InvalidInput or NotEnoughWorkers."""
    if means.data_is_local:
        check_dataset(spec, means.data_dir)
    if means.cpus is not None and means.gpus is not None:
        check_capacity(spec, cpus=means.cpus, gpus=means.gpus)


def look_up_train_samples(spec: JobSpec, means: Means) -> int:
    """The training samples of the job's dataset after the validation split. Raises InvalidInput where its files are not
    to be seen from here."""
    if means.data_is_local:
        check_dataset(spec, means.data_dir)
    try:
        return count_train_samples(spec.dataset, means.data_dir)
    except DatasetMissing as error:  # data that only the workers see
        raise InvalidInput([FieldError("dataset", spec.dataset.name, error.detail)]) from None


def check_dataset(spec: JobSpec, data_dir: Path) -> None:
    """Raise InvalidInput when the dataset's files are absent from `data_dir`, or too few for one epoch of the job or of
    a trial of its searches."""
    dataset = spec.dataset
    try:
        if isinstance(dataset, FolderDataset):
            samples = count_train_samples(dataset, data_dir)
            iterations_per_epoch(spec, samples)
            check_searches(spec, samples)
        elif not dataset.download:
            require_files(dataset.name, data_dir)
    except DatasetMissing as error:
        field, value = (
            ("dataset.path", dataset.path) if isinstance(dataset, FolderDataset) else ("dataset", dataset.name)
        )
        raise InvalidInput([FieldError(field, value, error.detail)]) from None


def check_capacity(spec: JobSpec, *, cpus: float, gpus: float) -> None:
    """Raise NotEnoughWorkers when a cluster of so many CPUs and GPUs can never run the job, whose workers take one
    each."""
    have, what = (
        (gpus, "GPUs") if spec.device == "cuda" else (max(cpus, gpus) if spec.device == "auto" else cpus, "CPUs")
    )
    if have < 1:
        remedy = "use auto or cpu, or add GPUs" if what == "GPUs" else "try again when it has a node"
        raise NotEnoughWorkers(
            f"device: {spec.device} takes one of the cluster's {what} a worker, and it has none; {remedy}"
        )
    if spec.workers > have:
        raise NotEnoughWorkers(
            f"workers: {spec.workers} asked for, one {what[:-1]} each, but the cluster has {cpus:g} CPUs and "
            f"{gpus:g} GPUs; ask for {int(have)} at most, or grow the cluster"
        )
