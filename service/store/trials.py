"""Queries about runs and trials, with what came of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session, aliased, contains_eager, selectinload

from service.spec.task import TaskName
from service.store.tables import Epoch, Job, Run, Trial
from service.wire.states import JobState


@dataclass(frozen=True)
class TrialWithResults:
    """A trial and what is recorded of it."""

    run: Run
    trial: Trial
    epochs: int  # recorded
    samples: int  # training samples of those epochs
    best: Epoch | None  # the epoch with the best validation accuracy, of equals the first
    last: Epoch | None


def get_trial(session: Session, job_id: str, label: str, number: int) -> Trial | None:
    query = select(Trial).join(Run).options(contains_eager(Trial.run))
    return session.scalar(query.where(Run.job_id == job_id, Run.label == label, Trial.number == number))


def get_run(session: Session, job_id: str, label: str) -> Run | None:
    return session.scalar(select(Run).where(Run.job_id == job_id, Run.label == label))


def stop_trials(session: Session, job_id: str) -> None:
    """A job ends: what has not ended of it stops."""
    runs = select(Run.id).where(Run.job_id == job_id).scalar_subquery()
    open_ = Trial.state.in_(["pending", "running"])
    session.execute(update(Trial).where(Trial.run_id.in_(runs), open_).values(state="stopped"))


def trials_with_cost(session: Session, job_id: str) -> Sequence[tuple[Run, Trial, int, int]]:
    """Every trial of a job with its run, its recorded epochs, and the training samples they took."""
    cost = (
        select(Epoch.trial_id, func.count().label("epochs"), func.sum(Epoch.samples).label("samples"))
        .group_by(Epoch.trial_id)
        .subquery()
    )
    query = (
        select(Run, Trial, func.coalesce(cost.c.epochs, 0), func.coalesce(cost.c.samples, 0))
        .join(Trial, Trial.run_id == Run.id)
        .outerjoin(cost, cost.c.trial_id == Trial.id)
        .where(Run.job_id == job_id)
        .order_by(Run.id, Trial.number)
    )
    return [(run, trial, int(epochs), int(samples)) for run, trial, epochs, samples in session.execute(query)]


def list_trials(session: Session, job_id: str) -> Sequence[tuple[Run, Trial]]:
    """Every trial of a job with its run, in the order in which they train."""
    query = select(Run, Trial).join(Trial).where(Run.job_id == job_id).order_by(Run.id, Trial.number)
    return [(run, trial) for run, trial in session.execute(query)]


def trials_with_results(
    session: Session, job_id: str, *, label: str | None = None, state: Sequence[str] = ()
) -> Sequence[TrialWithResults]:
    """Every trial of a job with its results, by run and number; of one run alone, or in those states."""
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
        select(Run, Trial, func.coalesce(last_rank.c.epochs, 0), func.coalesce(last_rank.c.samples, 0), best, last)
        .join(Trial, Trial.run_id == Run.id)
        .outerjoin(best_rank, and_(best_rank.c.trial_id == Trial.id, best_rank.c.by_accuracy == 1))
        .outerjoin(last_rank, and_(last_rank.c.trial_id == Trial.id, last_rank.c.by_number == 1))
        .outerjoin(best, best.id == best_rank.c.id)
        .outerjoin(last, last.id == last_rank.c.id)
        .where(Run.job_id == job_id)
        .order_by(Run.id, Trial.number)
    )
    if label is not None:
        query = query.where(Run.label == label)
    if state:
        query = query.where(Trial.state.in_(state))
    return [
        TrialWithResults(run, trial, int(epochs), int(samples), best, last)
        for run, trial, epochs, samples, best, last in session.execute(query)
    ]


def _rank(*order: Any) -> ColumnElement[int]:
    return func.row_number().over(partition_by=Epoch.trial_id, order_by=order)


def study_trials(session: Session, job_id: str, label: str) -> Sequence[tuple[Trial, Sequence[float]]]:
    """The trials of a study of a job that have begun, each with the test accuracies of its epochs in order."""
    query = (
        select(Trial)
        .join(Run, Run.id == Trial.run_id)
        .where(Run.job_id == job_id, Run.label == label)
        .options(selectinload(Trial.epochs))
        .order_by(Trial.number)
    )
    return [(trial, [epoch.test_accuracy for epoch in trial.epochs]) for trial in session.scalars(query)]


def has_study_trials(session: Session, job_id: str, states: Sequence[str]) -> bool:
    """Whether any trial of the job's study is in one of these states."""
    query = select(Trial.id).join(Run, Run.id == Trial.run_id)
    query = query.where(Run.job_id == job_id, Run.method == "study", Trial.state.in_(states))
    return session.scalar(query.limit(1)) is not None


def succeeded_stpt_epochs(
    session: Session, *, model: str, dataset: str, path: str | None, task: TaskName, optimizer: str | None, limit: int
) -> Sequence[tuple[Job, Trial]]:
    """The trials of stpt, with their epochs, of the newest `limit` succeeded jobs that have such a run, newest first.
    `path`: the folder, of an image-folder."""
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
    query = (
        select(Job, Trial)
        .join(Run, Run.job_id == Job.id)
        .join(Trial, Trial.run_id == Run.id)
        .where(Job.number.in_(jobs.scalar_subquery()), Run.method == "stpt")
        .options(selectinload(Trial.epochs), contains_eager(Trial.run))
        .order_by(Job.number.desc(), Trial.number)
    )
    return [(job, trial) for job, trial in session.execute(query) if trial.epochs]
