"""Runs the trainings of a job on Ray Train: one TorchTrainer for every epoch and branch of them."""

from contextlib import ExitStack
from pathlib import Path

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from structlog.contextvars import bind_contextvars

from service.errors import ForerunError, OutOfMemory, WorkerFailed
from service.logs import Style, configure_logging
from service.spec.data import NamedDataset
from service.spec.job import JobSpec
from service.wire.checkpoint import checkpoints_of
from service.wire.worker import Assignment
from workers.torch_group import GroupConfig

SHOWN_BY_RAY = {"label", "trial", "epoch", "learning_rate", "val_accuracy", "test_accuracy"}


def train_on_ray(
    spec: JobSpec,
    assignment: Assignment,
    *,
    name: str,
    api_url: str,
    data_dir: Path,
    storage_dir: Path,
    log_format: Style = "text",
) -> bool:
    """Run the job's trainings on `spec.workers` Ray workers, each epoch reported to the API as it ends; return whether
    they ended behind an epoch because the job is to pause.

    They go on from the newest checkpoints that an earlier attempt left. Raises the ForerunError that ended the
    training, or WorkerFailed when a worker died or raised something else: then another attempt may do better.
    """

    # The report token travels in this closure: Ray shows a train_loop_config on its dashboard and in its logs.
    def train_loop() -> bool:
        # here: neither the driver nor Ray Train's controller, which starts before the workers, needs torchvision
        from workers.datasets.load import load_data
        from workers.engine import progress
        from workers.engine.groups import Workers
        from workers.report import Reporter
        from workers.trainings import is_to_pause, train_job

        configure_logging("INFO", log_format)
        bind_contextvars(job=assignment.job_id, attempt=assignment.attempt)
        workers = Workers(get_device())
        with ExitStack() as stack:
            reporter = None
            if workers.rank == 0:
                spool = storage_dir / name / "spool"
                reporter = stack.enter_context(Reporter(api_url, assignment, spool, progress.so_far))
                if download := isinstance(spec.dataset, NamedDataset) and spec.dataset.download:
                    reporter.waits_for(f"the download of {spec.dataset.name}")
            data = load_data(spec.dataset, data_dir, workers.device)
            if reporter is not None and download:
                reporter.waits_for(None)
            for record in train_job(
                spec,
                data,
                workers,
                points=assignment.resume,
                trials=assignment.trials,
                attempt=assignment.attempt,
                folder=checkpoints_of(storage_dir, assignment.job_id),
                recorder=reporter,
            ):
                ray.train.report(record.model_dump(include=SHOWN_BY_RAY))
                if is_to_pause(workers, reporter):
                    return True
        return False

    use_gpu = spec.device == "cuda" or (spec.device == "auto" and ray.cluster_resources().get("GPU", 0) >= spec.workers)
    trainer = TorchTrainer(
        train_loop,  # type: ignore[arg-type]  # what it returns is Ray Train V2's `return_value`
        torch_config=GroupConfig(),
        scaling_config=ScalingConfig(num_workers=spec.workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=name, storage_path=str(storage_dir.absolute()), failure_config=FailureConfig(max_failures=0)
        ),
    )
    try:
        return bool(trainer.fit().return_value)  # type: ignore[attr-defined]
    except ray.train.WorkerGroupError as error:
        raise _cause(error, spec) from error
    except ray.train.ControllerError as error:
        raise WorkerFailed(f"Ray Train could not run the workers: {error.controller_failure}") from error


def _cause(error: ray.train.WorkerGroupError, spec: JobSpec) -> ForerunError:
    """The failure that came first, as one worker's own error makes the others fail in their collectives.

    An error that would come again in another attempt is anything but WorkerFailed.
    """
    failures = {rank: getattr(failure, "_base_exc", failure) for rank, failure in error.worker_failures.items()}
    for failure in failures.values():
        if isinstance(failure, ForerunError):
            return failure
        if isinstance(failure, torch.OutOfMemoryError):
            return OutOfMemory(
                f"a worker's share of global_batch_size {spec.global_batch_size} over workers {spec.workers} "
                f"({spec.batch_per_worker} samples, {spec.passes[0]} at once) does not fit its GPU; lower "
                f"microbatch_size, raise workers, or choose a smaller model: {failure}"
            )
    rank, failure = min(failures.items())
    return WorkerFailed(f"worker {rank} raised {type(failure).__name__}: {failure}")
