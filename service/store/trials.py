"""Runs and trials in SQL, with what came of them: queries and changes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Row, Select, and_, func, insert, select, update
from sqlalchemy.orm import aliased

from service.spec.job import JobSpec
from service.spec.task import TaskName
from service.store import records
from service.store.engine import Session
from service.store.rows import columns_of, record_of, records_of
from service.store.tables import Epoch, Job, Run, Trial
from service.wire.states import JobState
from service.wire.worker import TrialState

RUN_COLUMNS = (Run.label.label("label"), Run.method)  # by which a record says which run it belongs to


def runs_of(session: Session, job_id: str) -> Sequence[records.Run]:
    """The runs of a job, in the order of its spec."""
    query = select(*columns_of(Run, records.Run)).where(Run.job_id == job_id).order_by(Run.id)
    return records_of(records.Run, session.execute(query))


def get_run(session: Session, job_id: str, label: str) -> records.Run | None:
    """The job's run with that label; None when it has none."""
    query = select(*columns_of(Run, records.Run)).where(Run.job_id == job_id, Run.label == label)
    row = session.execute(query).one_or_none()
    return None if row is None else record_of(records.Run, row)


def get_trial(session: Session, job_id: str, label: str, number: int) -> records.Trial | None:
    """The trial of that number of the job's run with that label; None when there is none."""
    row = session.execute(_select_trials(job_id).where(Run.label == label, Trial.number == number)).one_or_none()
    return None if row is None else record_of(records.Trial, row)


def list_trials(session: Session, job_id: str) -> Sequence[records.Trial]:
    """Every trial of a job, in the order in which they train."""
    return records_of(records.Trial, session.execute(_select_trials(job_id)))


def first_trainings(session: Session, job_ids: Sequence[str]) -> dict[str, records.Trial]:
    """The first trial of each job's first run, by job id; a job whose first run has no trial yet is left out."""
    first = select(func.min(Run.id)).where(Run.job_id.in_(job_ids)).group_by(Run.job_id)
    query = select(Run.job_id, *RUN_COLUMNS, *columns_of(Trial, records.Trial)).join(Run, Run.id == Trial.run_id)
    rows = session.execute(query.where(Trial.run_id.in_(first), Trial.number == 1))
    return {row.job_id: record_of(records.Trial, row) for row in rows}


def trials_with_cost(session: Session, job_id: str) -> Sequence[records.TrialWithCost]:
    """Every trial of a job with the number of its recorded epochs, and the training samples that these took."""
    cost = (
        select(Epoch.trial_id, func.count().label("epochs"), func.sum(Epoch.samples).label("samples"))
        .group_by(Epoch.trial_id)
        .subquery()
    )
    query = (
        _select_trials(job_id)
        .add_columns(func.coalesce(cost.c.epochs, 0).label("epochs"), _whole(cost.c.samples).label("samples"))
        .outerjoin(cost, cost.c.trial_id == Trial.id)
    )
    return records_of(records.TrialWithCost, session.execute(query))


def trials_with_results(
    session: Session, job_id: str, *, label: str | None = None, state: Sequence[str] = ()
) -> Sequence[records.TrialWithResults]:
    """Every trial of a job with its results, ordered by run and number; those of one run alone, or in one of the states
    `state`, where these are given."""
    ranked = (
        select(
            Epoch.id,
            Epoch.trial_id,
            func.count().over(partition_by=Epoch.trial_id).label("epochs"),
            func.sum(Epoch.samples).over(partition_by=Epoch.trial_id).label("samples"),
            _rank(Epoch.val_accuracy.desc(), Epoch.epoch).label("by_accuracy"),
            _rank(Epoch.epoch.desc()).label("by_number"),
        )
        .join(Trial)
        .join(Run)
        .where(Run.job_id == job_id)
        .subquery()
    )
    best_rank, last_rank = aliased(ranked), aliased(ranked)
    best, last = aliased(Epoch), aliased(Epoch)
    query = (
        _select_trials(job_id)
        .add_columns(func.coalesce(last_rank.c.epochs, 0).label("epochs"), _whole(last_rank.c.samples).label("samples"))
        .add_columns(*columns_of(best, records.EpochResult, prefix="best_"))
        .add_columns(*columns_of(last, records.EpochResult, prefix="last_"))
        .outerjoin(best_rank, and_(best_rank.c.trial_id == Trial.id, best_rank.c.by_accuracy == 1))
        .outerjoin(last_rank, and_(last_rank.c.trial_id == Trial.id, last_rank.c.by_number == 1))
        .outerjoin(best, best.id == best_rank.c.id)
        .outerjoin(last, last.id == last_rank.c.id)
    )
    if label is not None:
        query = query.where(Run.label == label)
    if state:
        query = query.where(Trial.state.in_(state))
    return [
        record_of(records.TrialWithResults, row, best=_result(row, "best_"), last=_result(row, "last_"))
        for row in session.execute(query)
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
    trials = session.execute(_select_trials(job_id).where(*of_study)).all()
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
    """The trials of stpt, with their epochs, of the newest `limit` succeeded jobs that have such a run, newest first.
    `path` is the folder of an image-folder, None for other datasets; an optimizer of None means any."""
    its_task = func.coalesce(Job.spec["task", "name"].as_string(), "classification")  # the oldest jobs name none
    jobs = (
        select(Job.number)
        .join(Run, Run.job_id == Job.id)
        .where(Job.state == JobState.SUCCEEDED, Job.model == model, Job.dataset == dataset, its_task == task)
        .where(Run.method == "stpt")
        .order_by(Job.number.desc())
        .limit(limit)
    )
    if path is not None:
        jobs = jobs.where(Job.spec["dataset", "path"].as_string() == path)
    if optimizer is not None:
        jobs = jobs.where(Job.optimizer == optimizer)
    of_stpt = (Job.number.in_(jobs.scalar_subquery()), Run.method == "stpt")
    trainings = (
        select(Job.id.label("job_id"), Job.spec, Run.label.label("label"), Trial.id.label("trial_id"))
        .add_columns(Trial.seed, Trial.length)
        .join(Run, Run.job_id == Job.id)
        .join(Trial, Trial.run_id == Run.id)
        .where(*of_stpt)
        .order_by(Job.number.desc(), Trial.number)
    )
    results = (
        select(Epoch.trial_id, *columns_of(Epoch, records.EpochResult))
        .join(Trial, Trial.id == Epoch.trial_id)
        .join(Run, Run.id == Trial.run_id)
        .join(Job, Job.id == Run.job_id)
        .where(*of_stpt)
        .order_by(Epoch.epoch)
    )
    rows = session.execute(trainings).all()
    epochs: dict[int, list[records.EpochResult]] = {}
    for row in session.execute(results):
        epochs.setdefault(row.trial_id, []).append(record_of(records.EpochResult, row))
    return [
        record_of(records.PastTraining, row, spec=JobSpec.model_validate(row.spec), epochs=tuple(epochs[row.trial_id]))
        for row in rows
        if row.trial_id in epochs
    ]


def _select_trials(job_id: str) -> Select[*tuple[Any, ...]]:
    query: Select[*tuple[Any, ...]] = select(*RUN_COLUMNS, *columns_of(Trial, records.Trial)).select_from(Trial)
    return query.join(Run, Run.id == Trial.run_id).where(Run.job_id == job_id).order_by(Run.id, Trial.number)


def _whole(total: ColumnElement[Any]) -> ColumnElement[int]:
    """A sum of BIGINT is NUMERIC on PostgreSQL."""
    return func.coalesce(total, 0).cast(BigInteger)


def _rank(*order: Any) -> ColumnElement[int]:
    return func.row_number().over(partition_by=Epoch.trial_id, order_by=order)


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
