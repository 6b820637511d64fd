"""A trial's learning rates as a schedule to train by again, and the schedules that a spec asks for in place."""

from dataclasses import dataclass

from service.algorithms.candidates import trials_of
from service.errors import FieldError, InvalidInput, NotFound, StateConflict
from service.spec.job import JobSpec
from service.spec.methods.base import MethodSpec, Schedule
from service.store.engine import Session
from service.store.epochs import branches_of_epoch, epochs_of_trial
from service.store.jobs import get_job, job_spec
from service.store.trials import get_trial


@dataclass(frozen=True)
class TrialSchedule:
    """The learning rates of one trial of a run, and how many iterations an epoch of it has."""

    run: MethodSpec
    schedule: Schedule
    iterations_per_epoch: int


def schedule(session: Session, job_id: str, *, label: str | None = None, trial: int = 1) -> TrialSchedule:
    """The learning rates of a trial as a schedule to train by again; by default of the job's first run.

    Raises NotFound when there is no such job or trial, and StateConflict when not all its epochs are recorded, or no
    schedule can tell what its method did.
    """
    spec = job_spec(get_job(session, job_id))
    run = spec.run(label)
    row = get_trial(session, job_id, run.label, trial) if run else None
    if run is None or row is None:
        runs = " and ".join(f"{known.label} ({trials_of(spec, known)} trials)" for known in spec.methods)
        raise NotFound(f"job {job_id} has no trial {trial} of {run.label if run else label}; it has {runs}")
    epochs = epochs_of_trial(session, row.id)
    if not run.is_replayable:
        raise StateConflict(
            f"what {run.name} did cannot be told by one learning rate an epoch and an lr_schedule; name the method "
            f"{run.name} in a job instead"
        )
    if len(epochs) < row.length:
        raise StateConflict(
            f"job {job_id} has {len(epochs)} of {row.length} epochs of {run.label} {trial} recorded; "
            f"the schedule is there when it has all"
        )
    trained = spec.model_copy(update={"epochs": row.length})  # which a budget may have changed
    rates = [epoch.learning_rate for epoch in epochs]
    config = row.config or {}
    searched = run.searched_iterations(config) if len(epochs) == 1 else 0
    last = epochs[-1]
    branches = [branch.iterations for branch in branches_of_epoch(session, last.id)]
    iterations = run.trained_iterations(trained, last.epoch, last.iterations, branches, last.rollbacks)
    return TrialSchedule(run, run.schedule_of(rates, trained, config), iterations - searched)


def with_schedules(session: Session, spec: JobSpec) -> JobSpec:
    """The spec with the schedule of every job that it is to replay in place. Raises InvalidInput where a job has none,
    or one of another length."""
    methods, errors = list(spec.methods), []
    for number, method in enumerate(spec.methods):
        if method.replayed_job is not None:
            try:
                found = schedule(session, method.replayed_job).schedule
            except (NotFound, StateConflict) as error:
                raise InvalidInput([FieldError(f"methods[{number}].job", method.replayed_job, error.detail)]) from None
            methods[number] = method.model_copy(update={"schedule": found})
            errors += methods[number].errors(spec, f"methods[{number}]")
    if errors:
        raise InvalidInput(errors)
    return spec.model_copy(update={"methods": methods})
