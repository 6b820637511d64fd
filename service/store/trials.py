"""Runs and trials in SQL, with what came of them: queries and changes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, case, func, insert, or_, select, update

from service.spec.job import JobSpec
from service.spec.task import TaskName
from service.store import records
from service.store.engine import Session
from service.store.rows import columns_of, record_of, records_of
from service.store.tables import EPOCHS, JOBS, RUNS, TRIALS, Epoch, Job, Run, Trial
from service.wire.states import JobState
from service.wire.worker import TrialState

RUN_COLUMNS = (Run.label.label("label"), Run.method)  # by which a record says which run it belongs to
KEPT_OF_EPOCHS = ("epochs_done", "samples", "best_epoch", "settled_learning_rate")  # columns of trials
LABEL_COLUMNS = (RUNS.c.label, RUNS.c.method)  # the same, of the table itself


# Queries are made once and run with parameters: to make one takes longer than to run it.
_best, _last = EPOCHS.alias("best"), EPOCHS.alias("last")
_of_best = and_(_best.c.trial_id == TRIALS.c.id, _best.c.epoch == TRIALS.c.best_epoch)
_of_last = and_(_last.c.trial_id == TRIALS.c.id, _last.c.epoch == TRIALS.c.epochs_done)
_runs_trials = RUNS.join(TRIALS, TRIALS.c.run_id == RUNS.c.id)
_RUNS = select(*columns_of(RUNS, records.Run)).where(RUNS.c.job_id == bindparam("job_id")).order_by(RUNS.c.id)
_TRIALS: Select[*tuple[Any, ...]] = (
    select(*LABEL_COLUMNS, *columns_of(TRIALS, records.Trial))
    .select_from(_runs_trials)
    .where(RUNS.c.job_id == bindparam("job_id"))
    .order_by(RUNS.c.id, TRIALS.c.number)
)
_TRIAL = _TRIALS.where(RUNS.c.label == bindparam("label"), TRIALS.c.number == bindparam("number"))
_TRIALS_WITH_COST = _TRIALS.add_columns(TRIALS.c.epochs_done.label("epochs"), TRIALS.c.samples)
_TRIALS_WITH_RESULTS = (
    _TRIALS_WITH_COST.add_columns(*columns_of(_best, records.EpochResult, prefix="best_"))
    .add_columns(*columns_of(_last, records.EpochResult, prefix="last_"))
    .outerjoin(_best, _of_best)
    .outerjoin(_last, _of_last)
)
_lr_schedule = func.coalesce(JOBS.c.spec["lr_schedule"].as_string(), JobSpec.model_fields["lr_schedule"].default)
_its_task = func.coalesce(JOBS.c.spec["task", "name"].as_string(), "classification")  # the oldest jobs name none


@cache
def _past_trainings(has_path: bool, has_optimizer: bool) -> Select[*tuple[Any, ...]]:
    jobs = (
        select(JOBS.c.number)
        .join(RUNS, RUNS.c.job_id == JOBS.c.id)
        .where(JOBS.c.state == JobState.SUCCEEDED, RUNS.c.method == "stpt", _its_task == bindparam("task"))
        .where(JOBS.c.model == bindparam("model"), JOBS.c.dataset == bindparam("dataset"))
        .order_by(JOBS.c.number.desc())
        .limit(bindparam("jobs"))
    )
    if has_path:
        jobs = jobs.where(JOBS.c.spec["dataset", "path"].as_string() == bindparam("path"))
    if has_optimizer:
        jobs = jobs.where(JOBS.c.optimizer == bindparam("optimizer"))
    return (
        select(
            JOBS.c.id.label("job_id"), RUNS.c.label, TRIALS.c.id.label("trial_id"), _lr_schedule.label("lr_schedule")
        )
        .add_columns(*columns_of(JOBS, records.PastTraining), *columns_of(TRIALS, records.PastTraining))
        .add_columns(*columns_of(_best, records.PastTraining))
        .select_from(JOBS.join(_runs_trials, RUNS.c.job_id == JOBS.c.id).join(_best, _of_best))
        .where(RUNS.c.method == "stpt", JOBS.c.number.in_(jobs.scalar_subquery()))
        .order_by(JOBS.c.number.desc(), TRIALS.c.number)
    )


def runs_of(session: Session, job_id: str) -> Sequence[records.Run]:
    """The runs of a job, in the order of its spec."""
    return records_of(records.Run, session.execute(_RUNS, {"job_id": job_id}))


def get_run(session: Session, job_id: str, label: str) -> records.Run | None:
    """The job's run with that label; None when it has none."""
    query = select(*columns_of(Run, records.Run)).where(Run.job_id == job_id, Run.label == label)
    row = session.execute(query).one_or_none()
    return None if row is None else record_of(records.Run, row)


def get_trial(session: Session, job_id: str, label: str, number: int) -> records.Trial | None:
    """The trial of that number of the job's run with that label; None when there is none."""
    row = session.execute(_TRIAL, {"job_id": job_id, "label": label, "number": number}).one_or_none()
    return None if row is None else record_of(records.Trial, row)


def list_trials(session: Session, job_id: str) -> Sequence[records.Trial]:
    """Every trial of a job, in the order in which they train."""
    return records_of(records.Trial, session.execute(_TRIALS, {"job_id": job_id}))


def trials_with_cost(session: Session, job_id: str) -> Sequence[records.TrialWithCost]:
    """Every trial of a job with the number of its recorded epochs, and the training samples that these took."""
    return records_of(records.TrialWithCost, session.execute(_TRIALS_WITH_COST, {"job_id": job_id}))


def trials_with_results(
    session: Session, job_id: str, *, label: str | None = None, state: Sequence[str] = ()
) -> Sequence[records.TrialWithResults]:
    """Every trial of a job with its results, ordered by run and number; those of one run alone, or in one of the states
    `state`, where these are given."""
    query = _TRIALS_WITH_RESULTS
    if label is not None:
        query = query.where(RUNS.c.label == label)
    if state:
        query = query.where(TRIALS.c.state.in_(state))
    return [
        record_of(records.TrialWithResults, row, best=_result(row, "best_"), last=_result(row, "last_"))
        for row in session.execute(query, {"job_id": job_id})
    ]


def study_trials(session: Session, job_id: str, label: str) -> Sequence[records.TrialWithAccuracies]:
    """The trials of the job's study with that label, each with the test accuracies of its epochs in order."""
    of_study = (Run.job_id == job_id, Run.label == label)
    query = (
        select(Epoch.trial_id, Epoch.test_accuracy)
        .join(Trial, Trial.id == Epoch.trial_id)
        .join(Run, Run.id == Trial.run_id)
        .where(*of_study)
        .order_by(Epoch.epoch)
    )
    trials = session.execute(_TRIALS.where(RUNS.c.label == label), {"job_id": job_id}).all()
    accuracies: dict[int, list[float]] = {}
    for row in session.execute(query):
        accuracies.setdefault(row.trial_id, []).append(row.test_accuracy)
    return [
        record_of(records.TrialWithAccuracies, row, test_accuracies=tuple(accuracies.get(row.id, ()))) for row in trials
    ]


def has_study_trials(session: Session, job_id: str, states: Sequence[str]) -> bool:
    """Whether any trial of the job's studies is in one of `states`."""
    query = select(Trial.id).join(Run, Run.id == Trial.run_id)
    query = query.where(Run.job_id == job_id, Run.method == "study", Trial.state.in_(states))
    return session.scalar(query.limit(1)) is not None


def succeeded_stpt_trainings(
    session: Session, *, model: str, dataset: str, path: str | None, task: TaskName, optimizer: str | None, limit: int
) -> Sequence[records.PastTraining]:
    """The trials of stpt that have recorded an epoch, of the newest `limit` succeeded jobs that have such a run, newest
    first. `path` is the folder of an image-folder, None for other datasets; an optimizer of None means any."""
    wanted = {"model": model, "dataset": dataset, "path": path, "task": task, "optimizer": optimizer, "jobs": limit}
    rows = session.execute(_past_trainings(path is not None, optimizer is not None), wanted)
    return records_of(records.PastTraining, rows)


def _result(row: Row[*tuple[Any, ...]], prefix: str) -> records.EpochResult | None:
    """Of the epoch whose columns have that prefix; None: the outer join found none."""
    return None if row._mapping[f"{prefix}epoch"] is None else record_of(records.EpochResult, row, prefix=prefix)


# --- changes ---------------------------------------------------------------------------------------------


def insert_trial(session: Session, job_id: str, run_id: int, number: int, facts: records.TrialFacts) -> None:
    """Insert a trial that a search adds to its run, and count it among the job's trials."""
    session.execute(insert(Trial).values(run_id=run_id, number=number, **asdict(facts)))
    session.execute(update(Job).where(Job.id == job_id).values(trials=Job.trials + 1))


def update_trial(session: Session, trial_id: int, facts: records.TrialFacts) -> None:
    """Overwrite the facts of a trial with what its search says of it now."""
    _set_trial(session, trial_id, asdict(facts))


def set_trial_state(session: Session, trial_id: int, state: TrialState) -> None:
    """Set the state of a trial."""
    _set_trial(session, trial_id, {"state": state})


def stop_trials(session: Session, job_id: str) -> None:
    """Set the trials of a job that have not ended to stopped, because the job ends."""
    runs = select(Run.id).where(Run.job_id == job_id).scalar_subquery()
    open_ = Trial.state.in_(["pending", "running"])
    session.execute(update(Trial).where(Trial.run_id.in_(runs), open_).values(state="stopped"))


def _set_trial(session: Session, trial_id: int, values: Mapping[str, Any]) -> None:
    session.execute(update(Trial).where(Trial.id == trial_id).values(values))


def count_epoch(session: Session, trial_id: int, epoch: int, val_accuracy: float, samples: int) -> None:
    """Count an epoch that has been inserted in what its trial keeps of its epochs."""
    best = select(Epoch.val_accuracy).where(Epoch.trial_id == trial_id, Epoch.epoch == Trial.best_epoch)
    known = best.scalar_subquery()
    is_best = or_(known.is_(None), known < val_accuracy, and_(known == val_accuracy, Trial.best_epoch > epoch))
    counted = {
        "epochs_done": case((Trial.epochs_done < epoch, epoch), else_=Trial.epochs_done),
        "samples": Trial.samples + samples,
        "best_epoch": case((is_best, epoch), else_=Trial.best_epoch),
    }
    _set_trial(session, trial_id, counted)


def discount_epoch(session: Session, trial_id: int, samples: int) -> None:
    """Take an epoch that has been deleted out of what its trial keeps of its epochs, and count its samples as lost."""
    _set_trial(session, trial_id, {**_counted(), "lost_samples": Trial.lost_samples + samples})


def count_epochs_of_job(session: Session, job_id: str) -> None:
    """Count the epochs of every trial of a job anew in what its trials keep of their epochs."""
    runs = select(Run.id).where(Run.job_id == job_id).scalar_subquery()
    session.execute(update(Trial).where(Trial.run_id.in_(runs)).values(_counted()))


def _counted() -> dict[str, Any]:
    """What a trial keeps of its epochs, counted from these."""
    its = select(Epoch.epoch).where(Epoch.trial_id == Trial.id)
    return {
        "epochs_done": func.coalesce(its.with_only_columns(func.max(Epoch.epoch)).scalar_subquery(), 0),
        "samples": func.coalesce(its.with_only_columns(func.sum(Epoch.samples)).scalar_subquery(), 0),
        "best_epoch": its.order_by(Epoch.val_accuracy.desc(), Epoch.epoch).limit(1).scalar_subquery(),
    }


def keep_settled(session: Session, trial_id: int, learning_rate: float) -> None:
    """Keep the learning rate that the search of a training of stpt came to, whose job has succeeded."""
    _set_trial(session, trial_id, {"settled_learning_rate": learning_rate})
