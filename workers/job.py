"""The entry point of one Ray Job: it exchanges its ticket for its spec, trains, and reports how it ended.

    python -m workers.job JOB_ID

Everything else comes through the environment (service.settings.WorkerSettings) and from the API.
"""

import logging
import sys
import tempfile
from functools import partial
from pathlib import Path

import ray
from structlog.contextvars import bind_contextvars

from service.algorithms.epoch_plan import count_train_samples, iterations_per_epoch
from service.errors import ForerunError, StaleAttempt, WorkerFailed
from service.logs import configure_logging
from service.settings import WorkerSettings
from service.spec.data import NamedDataset
from service.spec.job import JobSpec
from service.wire.worker import Assignment, Outcome
from workers.disk import await_room, until_written
from workers.free_workers import FreeWorkers
from workers.launch import train_on_ray
from workers.report import ApiAway, PauseAsked, Reporter, exchange_ticket
from workers.retry import take_over
from workers.trainings import trainings_left

log = logging.getLogger("forerun.job")


def main(job_id: str) -> int:
    """Run the job's live attempt to its end, and return the exit code of the process.

    0: the job has succeeded, or is paused. 1: it has failed, and the API knows why. 2: a worker was lost, the API was
    away for too long, or something failed that nobody foresaw: the controller sees a Ray job without an outcome and
    makes the next attempt, which goes on from the newest checkpoint.
    """
    settings = WorkerSettings()
    configure_logging("INFO", settings.log_format)
    bind_contextvars(job=job_id)
    assignment = exchange_ticket(settings.api_url, job_id, settings.ticket.get_secret_value())
    name = f"{job_id}-a{assignment.attempt}"
    bind_contextvars(attempt=assignment.attempt)
    with Reporter(settings.api_url, assignment, settings.storage_dir / name / "spool") as reporter:
        try:
            spec = JobSpec.model_validate_json(assignment.spec)
            log.info("%s: %s on %s, %d workers", name, spec.model, spec.dataset.name, spec.workers)
            if not (isinstance(spec.dataset, NamedDataset) and spec.dataset.download):  # before any worker starts
                iterations_per_epoch(spec, count_train_samples(spec.dataset, settings.data_dir))
            for folder in (settings.storage_dir / name, Path(tempfile.gettempdir())):  # Ray's own files do not wait
                await_room(folder, reporter.waits_for)
            if assignment.retry_of is not None:
                source, folder = (settings.storage_dir / one for one in (assignment.retry_of, job_id))
                until_written(partial(take_over, source, folder), folder, reporter.waits_for)
            ray.init(log_to_driver=True)
            _run_trainings(spec, assignment, name, settings, reporter)
            _run_searches(spec, reporter, settings.storage_dir / job_id / "tune", settings.data_dir)
            outcome = Outcome(state="succeeded")
        except PauseAsked:
            outcome = Outcome(state="paused")
        except Exception as error:
            log.exception("%s ended", name)
            if isinstance(error, WorkerFailed | ApiAway) or not isinstance(error, ForerunError):
                if not isinstance(error, ApiAway):
                    reporter.flush()  # the more epochs are recorded, the later the next attempt begins
                return 2
            outcome = Outcome(state="failed", code=error.code, message=error.detail[:4000])
        try:
            reporter.outcome(outcome)
        except StaleAttempt as error:  # cancelled, or superseded: nobody waits for this attempt any more
            log.warning("%s", error)
            return 1
    return 1 if outcome.state == "failed" else 0


def _run_trainings(
    spec: JobSpec, assignment: Assignment, name: str, settings: WorkerSettings, reporter: Reporter
) -> None:
    """Run those of the job's trainings that have not ended, by Ray Train. Raises PauseAsked where they ended before
    that, or searches are to follow, and the job is to pause."""
    if not trainings_left(spec, assignment.trials):
        return
    reporter.look = FreeWorkers()
    pauses = train_on_ray(
        spec,
        assignment,
        name=name,
        api_url=settings.api_url,
        data_dir=settings.data_dir,
        storage_dir=settings.storage_dir,
        log_format=settings.log_format,
    )
    searches = any(method.is_search for method in spec.methods)
    if pauses and (searches or trainings_left(spec, reporter.progress())):
        raise PauseAsked


def _run_searches(spec: JobSpec, reporter: Reporter, folder: Path, data_dir: Path) -> None:
    """Run those of the job's searches that have not ended in `folder`, by Ray Tune."""
    if any(method.is_search for method in spec.methods):
        # Ray Tune, its searchers and torchvision: only where they are wanted
        from workers.datasets.load import load_data
        from workers.tune.driver import run_searches
        from workers.tune.heartbeats import so_far
        from workers.tune.trainable import PROGRESS

        reporter.iterations, reporter.look = partial(so_far, folder / PROGRESS), FreeWorkers()
        run_searches(
            spec,
            reporter,
            train_samples=count_train_samples(spec.dataset, data_dir),
            load=partial(load_data, spec.dataset, data_dir),
            folder=folder,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
