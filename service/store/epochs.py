"""Queries about epochs and their branches, of one job and of all."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import and_, func, or_, select, tuple_
from sqlalchemy.orm import Session, selectinload

from service.store.pages import Page, decode_cursor, page_of
from service.store.tables import Branch, Epoch, Job, Run, Trial
from service.wire.states import JobState


def get_epoch(session: Session, trial_id: int, epoch: int) -> Epoch | None:
    return session.scalar(select(Epoch).where(Epoch.trial_id == trial_id, Epoch.epoch == epoch))


def last_epoch(session: Session, trial_id: int) -> int:
    return (
        session.scalar(select(Epoch.epoch).where(Epoch.trial_id == trial_id).order_by(Epoch.epoch.desc()).limit(1)) or 0
    )


def epochs_of(session: Session, job_id: str, *, label: str | None = None, trial: int | None = None) -> Sequence[Epoch]:
    """Epochs of a job with their branches, by run, trial and epoch."""
    query = (
        select(Epoch)
        .join(Trial)
        .join(Run)
        .where(Run.job_id == job_id)
        .options(selectinload(Epoch.branches), selectinload(Epoch.trial).selectinload(Trial.run))
        .order_by(Run.id, Trial.number, Epoch.epoch)
    )
    wanted = [(Run.label, label), (Trial.number, trial)]
    query = query.where(*(column == value for column, value in wanted if value is not None))
    return session.scalars(query).all()


def epochs_of_trial(session: Session, trial_id: int) -> Sequence[Epoch]:
    return session.scalars(select(Epoch).where(Epoch.trial_id == trial_id).order_by(Epoch.epoch)).all()


def branches_of(session: Session, job_id: str, epoch: int | None = None) -> Sequence[Branch]:
    query = (
        select(Branch)
        .join(Epoch)
        .join(Trial)
        .join(Run)
        .where(Run.job_id == job_id)
        .options(selectinload(Branch.epoch_row).selectinload(Epoch.trial).selectinload(Trial.run))
        .order_by(Run.id, Trial.number, Epoch.epoch, Branch.number)
    )
    return session.scalars(query if epoch is None else query.where(Epoch.epoch == epoch)).all()


def latest_epochs(session: Session, job_ids: Sequence[str]) -> dict[str, Epoch]:
    """The newest epoch of the first trial of each job's first run, by job id."""
    first = select(func.min(Run.id)).where(Run.job_id.in_(job_ids)).group_by(Run.job_id)
    last = (
        select(Run.job_id, Epoch.trial_id, func.max(Epoch.epoch).label("epoch"))
        .join(Trial, Trial.id == Epoch.trial_id)
        .join(Run, Run.id == Trial.run_id)
        .where(Run.id.in_(first), Trial.number == 1)
        .group_by(Run.job_id, Epoch.trial_id)
        .subquery()
    )
    same = (Epoch.trial_id == last.c.trial_id) & (Epoch.epoch == last.c.epoch)
    return {row[0]: row[1] for row in session.execute(select(last.c.job_id, Epoch).join(last, same))}


def points_of(session: Session, job_id: str) -> Sequence[tuple[Any, ...]]:
    """Every epoch of a job in the order recorded: label, seed, samples, val_accuracy, test_accuracy,
    evaluation_samples, seconds, recorded_at."""
    query = (
        select(
            Run.label,
            Trial.seed,
            Epoch.samples,
            Epoch.val_accuracy,
            Epoch.test_accuracy,
            Epoch.evaluation_samples,
            Epoch.seconds,
            Epoch.recorded_at,
        )
        .join(Trial, Trial.run_id == Run.id)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .where(Run.job_id == job_id)
        .order_by(Epoch.recorded_at, Epoch.id)
    )
    return [tuple(row) for row in session.execute(query)]


def epochs_of_all_jobs(
    session: Session,
    *,
    model: str | None = None,
    dataset: str | None = None,
    optimizer: str | None = None,
    batch: int | None = None,
    method: str | None = None,
    label: str | None = None,
    state: Sequence[JobState] = (),
    limit: int,
    cursor: str | None = None,
) -> Page[Mapping[str, Any]]:
    """The learning rate of every epoch of every job: newest jobs first; inside a job by run, trial and epoch.

    Optimizer and batch are those of the trial, where a search has chosen them, else those of the job.
    """
    searched = Trial.config["optimizer"]
    its_optimizer = func.coalesce(Trial.config["optimizer", "name"].as_string(), searched.as_string(), Job.optimizer)
    its_batch = func.coalesce(Trial.config["global_batch_size"].as_integer(), Job.global_batch_size)
    place = tuple_(Run.id, Trial.number, Epoch.epoch)
    query = (
        select(
            Job.number.label("job_number"),
            Run.id.label("run_id"),
            Job.id.label("job_id"),
            Job.model,
            Job.dataset,
            its_optimizer.label("optimizer"),
            its_batch.label("global_batch_size"),
            Run.label.label("label"),
            Run.method,
            Trial.number.label("trial"),
            Trial.seed,
            Epoch.epoch,
            Epoch.phase,
            Epoch.learning_rate,
            Epoch.first_learning_rate,
            Epoch.last_learning_rate,
            Epoch.val_accuracy,
            Epoch.test_accuracy,
            Epoch.samples,
        )
        .join(Run, Run.job_id == Job.id)
        .join(Trial, Trial.run_id == Run.id)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .order_by(Job.number.desc(), Run.id, Trial.number, Epoch.epoch)
        .limit(limit + 1)
    )
    its_own = [(its_optimizer, optimizer), (its_batch, batch), (Run.method, method), (Run.label, label)]
    wanted = [(Job.model, model), (Job.dataset, dataset), *its_own]
    query = query.where(*(column == value for column, value in wanted if value is not None))
    if state:
        query = query.where(Job.state.in_(state))
    if cursor is not None:
        number, *after = decode_cursor(cursor, 4)
        query = query.where(or_(Job.number < number, and_(Job.number == number, place > tuple_(*after))))
    rows = [row._asdict() for row in session.execute(query)]
    return page_of(rows, limit, itemgetter("job_number", "run_id", "trial", "epoch"))
