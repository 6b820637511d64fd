"""What recorded epochs amount to: a schedule to train by again, what a selector can be judged by, a comparison of a
job's methods, the table of a study, a batch ramp, a learning rate to begin with."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from service.algorithms.batch_ramp import Ramp, ramp
from service.algorithms.candidates import trials_of
from service.algorithms.search_space import ramp_start
from service.algorithms.selectors import BranchResult
from service.errors import FieldError, InvalidInput, NotFound, StateConflict
from service.results.comparison import Point, RunResult, SeedRun, compare
from service.results.recommendation import PastEpoch, PastRun, Recommendation, recommend
from service.results.selector_replay import StoredEpoch
from service.results.study import COUNTED, StudyRow, TrialOutcome, common_to_a_table, study_rows
from service.spec.job import HISTORY_LR_SET, FolderDataset, HistoryLrSet, JobSpec
from service.spec.methods import (
    CosineMethod,
    HalvingMethod,
    OneCycleMethod,
    PbtMethod,
    ProdigyMethod,
    RampMethod,
    ReferenceMethod,
    ReplayMethod,
    SamplerMethod,
    Schedule,
    ScheduleFreeMethod,
    ScheduleMethod,
    StptMethod,
    StudyMethod,
    SweepMethod,
)
from service.spec.task import TaskName
from service.spec.types import MAX_BATCH
from service.store.epochs import epochs_of, epochs_of_trial, points_of
from service.store.jobs import get_job, jobs_of_experiment
from service.store.tables import Epoch, Job, Trial
from service.store.trials import (
    get_trial,
    has_study_trials,
    list_trials,
    study_trials,
    succeeded_stpt_epochs,
    trials_with_results,
)
from service.validation.across_fields import check_replayed
from service.wire.states import TERMINAL

_Kind = TypeVar("_Kind", StudyMethod, RampMethod)

EVIDENCE_JOBS = 100  # the newest so many are asked for a recommendation


def job_spec(job: Job) -> JobSpec:
    return JobSpec.model_validate(job.spec)


def schedule(session: Session, job_id: str, *, method: str | None = None, trial: int = 1) -> tuple[Schedule, int]:
    """The learning rates of a trial (by default of the job's first run), and the iterations of an epoch.

    Raises NotFound, or StateConflict when not all epochs are recorded.
    """
    spec = job_spec(get_job(session, job_id))
    wanted = method or spec.methods[0].name
    run = next((known for known in spec.methods if known.name == wanted), None)
    row = get_trial(session, job_id, run.name, trial) if run else None
    if run is None or row is None:
        methods = " and ".join(f"{known.name} ({trials_of(spec, known)} trials)" for known in spec.methods)
        raise NotFound(f"job {job_id} has no trial {trial} of {wanted}; it has {methods}")
    epochs = epochs_of_trial(session, row.id)
    if isinstance(run, OneCycleMethod | ScheduleFreeMethod | ProdigyMethod | ScheduleMethod | StudyMethod):
        raise StateConflict(
            f"what {run.name} did cannot be told by one learning rate an epoch and an envelope; name the method "
            f"{run.name} in a job instead"
        )
    if len(epochs) < row.length:
        raise StateConflict(
            f"job {job_id} has {len(epochs)} of {row.length} epochs of {run.name} {trial} recorded; "
            f"the schedule is there when it has all"
        )
    rates = [epoch.learning_rate for epoch in epochs]
    match run:
        case StptMethod():
            made = Schedule(learning_rates=rates, envelope=spec.envelope, warmup_epochs=spec.warmup_epochs)
        case SweepMethod():
            made = Schedule(learning_rates=rates, envelope=run.schedule)
        case ReferenceMethod():
            made = Schedule(learning_rates=rates)
        case CosineMethod():
            made = Schedule(learning_rates=rates, envelope="cosine")
        case SamplerMethod() | HalvingMethod() | PbtMethod():
            envelope = (row.config or {}).get("envelope", run.schedule or spec.envelope)
            made = Schedule(learning_rates=rates, envelope=envelope)
        case RampMethod():
            made = Schedule(learning_rates=rates, envelope=spec.envelope)
        case ReplayMethod():
            assert run.schedule is not None  # the door has put it in
            made = run.schedule
    return made, _iterations(epochs[-1])


def complete(session: Session, spec: JobSpec, accepted: JobSpec | None = None) -> JobSpec:
    """The spec with what it takes from past jobs in place: schedules to replay, and learning rates of the history.

    `accepted`: that of the job that the same request has made; what it was given stays, whatever was learned since.
    Raises InvalidInput.
    """
    spec = with_schedules(session, spec)
    if not isinstance(spec.lr_set, HistoryLrSet):
        return spec
    if accepted is not None and accepted.lr_set == HISTORY_LR_SET:
        learning_rate = accepted.initial_learning_rate
    else:
        learning_rate = _from_history(session, spec).learning_rate
    return spec.model_copy(update={"lr_set": HISTORY_LR_SET, "initial_learning_rate": learning_rate})


def _from_history(session: Session, spec: JobSpec) -> Recommendation:
    dataset = spec.dataset
    try:
        return recommendation(
            session,
            model=spec.model,
            dataset=dataset.name,
            path=dataset.path if isinstance(dataset, FolderDataset) else None,
            optimizer=spec.optimizer.name,
            batch=spec.global_batch_size,
            task=spec.task.name,
        )
    except NotFound as error:
        raise InvalidInput([FieldError("lr_set.from_history", True, error.detail)]) from None


def recommendation(
    session: Session,
    *,
    model: str,
    dataset: str,
    path: str | None,
    optimizer: str | None,
    batch: int | None,
    task: TaskName = "classification",
) -> Recommendation:
    """What the newest succeeded jobs of this model, dataset and task recommend. Raises NotFound when there is none."""
    rows = succeeded_stpt_epochs(
        session, model=model, dataset=dataset, path=path, task=task, optimizer=optimizer, limit=EVIDENCE_JOBS
    )
    runs = [
        PastRun(
            job_id=job.id,
            spec=job_spec(job),
            seed=trial.seed,
            epochs=[
                PastEpoch(row.epoch, row.learning_rate, row.val_accuracy, row.test_accuracy) for row in trial.epochs
            ],
        )
        for job, trial in rows
    ]
    found = recommend(runs, optimizer=optimizer, batch=batch)
    if found is None:
        how = "" if optimizer is None else f" with {optimizer}"
        where = dataset if path is None else f"{dataset} {path}"
        what = "job" if task == "classification" else f"{task} job"
        raise NotFound(
            f"no succeeded {what} has trained {model} on {where}{how} by stpt yet; submit one with lr_set left out, "
            "and what it chooses is recommended from then on"
        )
    return found


def comparison(session: Session, job_id: str) -> list[RunResult]:
    """The results of every method of the job, in the order of its runs."""
    points: dict[tuple[str, int], list[Point]] = {}
    for method, seed, *values in points_of(session, job_id):
        points.setdefault((method, seed), []).append(Point(*values))
    trials: dict[str, dict[int, list[Trial]]] = {run.method: {} for run in get_job(session, job_id).runs}
    for run, trial in list_trials(session, job_id):
        trials[run.method].setdefault(trial.seed, []).append(trial)
    return compare(
        {
            method: [
                SeedRun(seed, len(its), sum(trial.lost_samples for trial in its), points.get((method, seed), []))
                for seed, its in sorted(by_seed.items())
            ]
            for method, by_seed in trials.items()
        }
    )


def study(session: Session, jobs: Sequence[Job]) -> list[StudyRow]:
    """The table of the jobs' studies. Raises NotFound where a job has none."""
    methods = [_method(job_spec(job), job.id, StudyMethod) for job in jobs]
    outcomes = [
        TrialOutcome(trial.config["variant"], trial.config["global_batch_size"], trial.seed, trial.state, accuracies)
        for job in jobs
        for trial, accuracies in study_trials(session, job.id)
        if trial.config  # one that was lost before it began has none
    ]
    return study_rows(methods, outcomes)


def study_jobs(session: Session, experiment: str) -> list[Job]:
    """The experiment's jobs that have a study, oldest first, at least one; not those that ended without a result.
    Raises NotFound; InvalidInput where they differ in more than the points and seeds of one table."""
    specs = [(job, job_spec(job)) for job in jobs_of_experiment(session, experiment)]
    studies = [(job, spec) for job, spec in specs if any(isinstance(method, StudyMethod) for method in spec.methods)]
    if not studies:
        raise NotFound(f"no job of the experiment {experiment!r} has a study; GET /v1/jobs lists the jobs")
    known: dict[str, Any] = {}
    told = [
        (job, spec)
        for job, spec in studies
        if job.job_state not in TERMINAL or has_study_trials(session, job.id, COUNTED)
    ]
    for job, spec in told:
        for name, value in common_to_a_table(spec).items():
            if known.setdefault(name, value) != value:
                message = f"{name} of {job.id} is not that of its studies before; ask for the study of each job"
                raise InvalidInput([FieldError("experiment", experiment, message)])
    return [job for job, _ in told or studies[-1:]]


def ramps(session: Session, job_id: str) -> dict[int, Ramp]:
    """Where the batch ramp of each seed of the job stands. Raises NotFound where it has none."""
    spec = job_spec(get_job(session, job_id))
    method = _method(spec, job_id, RampMethod)
    accuracies: dict[int, list[float | None]] = {}
    for _, trial, _, _, _, last in trials_with_results(session, job_id, method=method.name):
        known = accuracies.setdefault(trial.seed, [])
        if trial.config and trial.state in ("completed", "diverged", "failed"):  # one that was lost has no config
            known.append(last.val_accuracy if last is not None and trial.state == "completed" else None)
    start = ramp_start(spec)
    return {
        seed: ramp(start, known, tolerance=method.tolerance, largest_batch=MAX_BATCH)
        for seed, known in sorted(accuracies.items())
    }


def _method(spec: JobSpec, job_id: str, kind: type[_Kind]) -> _Kind:
    """The job's method of that kind. Raises NotFound where it has none."""
    for method in spec.methods:
        if isinstance(method, kind):
            return method
    names = ", ".join(method.name for method in spec.methods)
    raise NotFound(f"job {job_id} has no {kind.model_fields['name'].default}; its methods are {names}")


def with_schedules(session: Session, spec: JobSpec) -> JobSpec:
    """The spec with the schedule of every job that it is to replay. Raises InvalidInput."""
    methods, errors = [], []
    for number, method in enumerate(spec.methods):
        if isinstance(method, ReplayMethod) and method.schedule is None:
            assert method.job is not None
            try:
                found, _ = schedule(session, method.job)
            except (NotFound, StateConflict) as error:
                raise InvalidInput([FieldError(f"methods[{number}].job", method.job, error.detail)]) from None
            method = method.model_copy(update={"schedule": found})
            errors += check_replayed(spec, number, found)
        methods.append(method)
    if errors:
        raise InvalidInput(errors)
    return spec.model_copy(update={"methods": methods})


def stored_epochs(session: Session, job_id: str) -> list[StoredEpoch]:
    """Epochs of the job's STPT run that had a Pre-train, with the branches that competed in the end: those of the last
    retry, and after a rollback the tamer ones alone."""
    return [
        StoredEpoch(
            epoch=row.epoch,
            learning_rate=row.learning_rate,
            branches=[
                BranchResult(branch.number, branch.learning_rate, math.nan if branch.metric is None else branch.metric)
                for branch in row.branches
                if branch.retry == row.retries and branch.learning_rate < _undone(row)
            ],
            end_metrics={b.number: b.end_metric for b in row.branches if b.end_metric is not None},
        )
        for row in epochs_of(session, job_id, method="stpt")
        if row.branches
    ]


def _undone(row: Epoch) -> float:
    """The smallest learning rate whose Main-train was undone."""
    return min((branch.learning_rate for branch in row.branches if branch.state == "rolled_back"), default=math.inf)


def _iterations(row: Epoch) -> int:
    """alpha + beta, of what an epoch with its branches and undone Main-trains took in all."""
    if not row.branches:
        return row.iterations
    alpha = row.branches[0].iterations
    return alpha + (row.iterations - alpha * len(row.branches)) // (1 + row.rollbacks)
