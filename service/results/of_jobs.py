"""What the recorded epochs of jobs come to, read from SQL: comparison, study, batch ramp, decisions, and the
branches to judge a selector by."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from service.algorithms.batch_ramp import Ramp, ramp
from service.algorithms.choices import competing
from service.algorithms.search_space import ramp_start
from service.errors import FieldError, InvalidInput, NotFound
from service.results.comparison import Run, RunResult, SeedRun, compare
from service.results.decisions import Explanation, decisions_of
from service.results.selector_replay import StoredEpoch, stored_epoch
from service.results.stage_decisions import FORECAST, decisions_of_stages
from service.results.study import COUNTED, StudyRow, TrialOutcome, common_to_a_table, study_rows
from service.spec.job import JobSpec
from service.spec.methods.autolrs import AutoLrsMethod
from service.spec.methods.batch_ramp import RampMethod
from service.spec.methods.stpt import StptMethod
from service.spec.methods.study import StudyMethod
from service.spec.types import MAX_BATCH
from service.store.engine import Session
from service.store.epochs import costs_of, epochs_with_branches
from service.store.jobs import get_job, job_spec, jobs_of_experiment
from service.store.records import EpochCost, Job, Trial
from service.store.trials import get_trial, has_study_trials, list_trials, runs_of, study_trials, trials_with_results
from service.wire.states import TERMINAL

_Kind = TypeVar("_Kind", StudyMethod, RampMethod, StptMethod)


def comparison(session: Session, job_id: str) -> list[RunResult]:
    """The results of every method of the job, in the order of its runs."""
    points: dict[tuple[str, int], list[EpochCost]] = {}
    for epoch in costs_of(session, job_id):
        points.setdefault((epoch.label, epoch.seed), []).append(epoch)
    runs = runs_of(session, job_id)
    trials: dict[str, dict[int, list[Trial]]] = {run.label: {} for run in runs}
    for trial in list_trials(session, job_id):
        trials[trial.label].setdefault(trial.seed, []).append(trial)
    return compare([Run(run.label, run.method, _by_seed(run.label, trials[run.label], points)) for run in runs])


def _by_seed(
    label: str, trials: Mapping[int, Sequence[Trial]], points: Mapping[tuple[str, int], Sequence[EpochCost]]
) -> list[SeedRun]:
    """What the run with that label did with each seed."""
    return [
        SeedRun(seed, len(its), sum(trial.lost_samples for trial in its), points.get((label, seed), []))
        for seed, its in sorted(trials.items())
    ]


def study(session: Session, jobs: Sequence[Job], label: str | None = None) -> list[StudyRow]:
    """The table of the studies of jobs, of each job the first one, or the one with that label. Raises NotFound where a
    job has no such study."""
    methods = [method_of(job_spec(job), job.id, StudyMethod, label) for job in jobs]
    outcomes = [
        TrialOutcome(
            variant=trial.config["variant"],
            global_batch_size=trial.config["global_batch_size"],
            seed=trial.seed,
            state=trial.state,
            test_accuracies=trial.test_accuracies,
        )
        for job, method in zip(jobs, methods, strict=True)
        for trial in study_trials(session, job.id, method.label)
        if trial.config  # one that was lost before it began has none
    ]
    return study_rows(methods, outcomes)


def study_jobs(session: Session, experiment: str) -> list[Job]:
    """The experiment's jobs that have a study, oldest first, at least one; those that ended without a result are left
    out. Raises NotFound where none has a study, and InvalidInput where they differ in more than the points and seeds of
    one table."""
    specs = [(job, job_spec(job)) for job in jobs_of_experiment(session, experiment)]
    studies = [(job, spec) for job, spec in specs if spec.methods_of(StudyMethod)]
    if not studies:
        raise NotFound(f"no job of the experiment {experiment!r} has a study; GET /v1/jobs lists the jobs")
    known: dict[str, Any] = {}
    told = [
        (job, spec) for job, spec in studies if job.state not in TERMINAL or has_study_trials(session, job.id, COUNTED)
    ]
    for job, spec in told:
        for name, value in common_to_a_table(spec).items():
            if known.setdefault(name, value) != value:
                message = f"{name} of {job.id} is not that of its studies before; ask for the study of each job"
                raise InvalidInput([FieldError("experiment", experiment, message)])
    return [job for job, _ in told or studies[-1:]]


def ramps(session: Session, job_id: str, label: str | None = None) -> dict[int, Ramp]:
    """Where the job's batch ramp stands, by seed: its first one, or the one with that label. Raises NotFound where
    there is no such job, or it has no such ramp."""
    spec = job_spec(get_job(session, job_id))
    method = method_of(spec, job_id, RampMethod, label)
    accuracies: dict[int, list[float | None]] = {}
    for trial in trials_with_results(session, job_id, label=method.label):
        known = accuracies.setdefault(trial.seed, [])
        if trial.config and trial.state in ("completed", "diverged", "failed"):  # one that was lost has no config
            known.append(trial.last.val_accuracy if trial.last is not None and trial.state == "completed" else None)
    start = ramp_start(spec)
    return {
        seed: ramp(start, known, tolerance=method.tolerance, largest_batch=MAX_BATCH)
        for seed, known in sorted(accuracies.items())
    }


def check_label(session: Session, job_id: str, label: str | None) -> None:
    """Raise InvalidInput where the job has no run with that label; a label of None asks for nothing."""
    if label is None:
        return
    labels = [run.label for run in runs_of(session, job_id)]
    if label not in labels:
        message = f"the job has no run with this label; it has {', '.join(labels)}"
        raise InvalidInput([FieldError("label", label, message)])


def method_of(spec: JobSpec, job_id: str, kind: type[_Kind], label: str | None = None) -> _Kind:
    """The job's first method of the class `kind`, or the one of them with that label. Raises NotFound where it has
    none."""
    for method in spec.methods_of(kind):
        if label in (None, method.label):
            return method
    raise _no_such_run(spec, job_id, kind.model_fields["name"].default, label)


def _no_such_run(spec: JobSpec, job_id: str, kind: str, label: str | None) -> NotFound:
    wanted = kind if label is None else f"{kind} with the label {label}"
    runs = ", ".join(
        method.label if method.label == method.name else f"{method.label} ({method.name})" for method in spec.methods
    )
    return NotFound(f"job {job_id} has no {wanted}; its runs are {runs}")


def decisions(session: Session, job_id: str, *, label: str | None = None, trial: int = 1) -> Explanation:
    """How each recorded epoch of one trial of the job's run of stpt or autolrs came to its learning rate: of the one
    with that label, or of the first of stpt, or without stpt of autolrs. Raises NotFound where there is no such job,
    run or trial."""
    spec = job_spec(get_job(session, job_id))
    choosing: list[StptMethod | AutoLrsMethod] = [*spec.methods_of(StptMethod), *spec.methods_of(AutoLrsMethod)]
    method = next((method for method in choosing if label in (None, method.label)), None)
    if method is None:
        raise _no_such_run(spec, job_id, "stpt or autolrs", label)
    row = get_trial(session, job_id, method.label, trial)
    if row is None:
        raise NotFound(f"job {job_id} has no trial {trial} of {method.label}; its last one is {spec.seeds}")
    epochs = epochs_with_branches(session, job_id, label=method.label, trial=trial)
    trained = spec.model_copy(update={"epochs": row.length})  # which a budget may have changed
    if isinstance(method, AutoLrsMethod):
        options = method.model_dump(exclude={"label"})
        return Explanation(method.label, FORECAST, options, decisions_of_stages(trained, method, epochs))
    selector = method.selector.model_dump()
    return Explanation(method.label, method.metric, selector, decisions_of(trained, method, epochs))


def stored_epochs(session: Session, job_id: str, label: str) -> dict[int, list[StoredEpoch]]:
    """The epochs that had a Pre-train of each trial, by its number, of the job's stpt run with that label, with the
    branches that competed in the end: those of the last retry, and after a rollback only those with smaller learning
    rates than the ones undone."""
    found: dict[int, list[StoredEpoch]] = {}
    for row in epochs_with_branches(session, job_id, label=label):
        if row.branches:
            found.setdefault(row.trial, []).append(stored_epoch(row, competing(row.branches)))
    return found
