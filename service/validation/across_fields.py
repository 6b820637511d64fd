"""Rules of a spec that no single field can tell, because they hold between several of them."""

from service.algorithms.candidates import trials_of
from service.algorithms.epoch_plan import iterations_per_epoch, known_train_samples
from service.errors import FieldError, InvalidInput
from service.spec.catalog import BACKBONES, DATASETS, image_sizes
from service.spec.data import FolderDataset
from service.spec.job import JobSpec
from service.spec.optimizer import TvlarsOptimizer
from service.spec.task import BarlowTwinsTask

MAX_TRAININGS = 10_000  # of a job, over its methods and seeds: each has a row from the start


def check_across_fields(spec: JobSpec) -> None:
    """Check the rules that hold between several fields of a spec. Raises InvalidInput with one entry for each wrong
    field."""
    errors = []
    if spec.global_batch_size % spec.workers:
        message = f"must be a multiple of workers ({spec.workers}), so that every worker takes the same share"
        errors.append(FieldError("global_batch_size", spec.global_batch_size, message))
    else:
        errors += _image_errors(spec)
    if isinstance(spec.task, BarlowTwinsTask):
        errors += _check_barlow_twins(spec)
    for number, method in enumerate(spec.methods):
        errors += method.errors(spec, f"methods[{number}]")
    if isinstance(spec.optimizer, TvlarsOptimizer):
        errors += _check_tvlars(spec.optimizer)
    if spec.telemetry is not None and all(method.is_search for method in spec.methods):
        message = "trials of searches and studies have none; leave it out, or add a training to methods, such as stpt"
        errors.append(FieldError("telemetry.every", spec.telemetry.every, message))
    trainings = spec.seeds * sum(trials_of(spec, method) for method in spec.methods)
    if trainings > MAX_TRAININGS:
        message = f"make {trainings} trainings, more than a job may have ({MAX_TRAININGS}); lower it, or split the job"
        errors.append(FieldError("seeds", spec.seeds, message))
    relative_to = spec.measuring_run
    measures = [method.label for method in spec.methods if method.sets_budget]
    if relative_to and relative_to not in measures:
        known = f"those of stpt are {', '.join(measures)}" if measures else "add stpt to methods"
        message = f"the job has no run of stpt with this label; {known}, or give budget.samples or budget.epochs"
        errors.append(FieldError("budget.relative_to", relative_to, message))
    try:
        if (train_samples := known_train_samples(spec)) is not None:
            iterations_per_epoch(spec, train_samples)
    except InvalidInput as error:
        errors.extend(error.errors)
    if errors:  # two runs may find the same fault in what they share
        raise InvalidInput([error for number, error in enumerate(errors) if error not in errors[:number]])


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
    if spec.global_batch_size == 1:
        message = "barlow-twins correlates over a batch; use 2 or more"
        errors.append(FieldError("global_batch_size", 1, message))
    if spec.microbatch_size is not None:
        message = "the loss of barlow-twins is that of a whole batch, in one pass; leave it out"
        errors.append(FieldError("microbatch_size", spec.microbatch_size, message))
    return errors
