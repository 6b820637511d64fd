"""Epochs and their branches in SQL, of one job and of all: queries and changes."""

from collections.abc import Sequence
from datetime import datetime
from itertools import repeat
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select, tuple_, update

from service.store import records
from service.store.engine import Session
from service.store.pages import Page, decode_cursor, page_of
from service.store.rows import columns_of, record_of, records_of
from service.store.tables import Branch, Epoch, Job, Layer, Run, Trial
from service.store.trials import RUN_COLUMNS
from service.wire.states import JobState
from service.wire.worker import EpochRecord, LayersRecord


def get_epoch(session: Session, trial_id: int, epoch: int) -> records.Epoch | None:
    """The epoch of that number of a trial; None when it is not recorded."""
    row = session.execute(_select_epochs(Epoch.trial_id == trial_id, Epoch.epoch == epoch)).one_or_none()
    return None if row is None else record_of(records.Epoch, row)


def last_epoch(session: Session, trial_id: int) -> int:
    """The number of the last recorded epoch of a trial; 0 when none is recorded."""
    return session.scalar(select(func.max(Epoch.epoch)).where(Epoch.trial_id == trial_id)) or 0


def slowest_epoch(session: Session, job_id: str) -> float | None:
    """The seconds that the slowest recorded epoch of a job took; None when none is recorded."""
    return session.scalar(select(func.max(Epoch.seconds)).join(Trial).join(Run).where(Run.job_id == job_id))


def epochs_of(session: Session, job_id: str) -> Sequence[records.Epoch]:
    """The recorded epochs of a job, ordered by run, trial and epoch."""
    return records_of(records.Epoch, session.execute(_select_epochs(Run.job_id == job_id)))


def epochs_with_branches(
    session: Session, job_id: str, *, label: str | None = None, trial: int | None = None, epoch: int | None = None
) -> Sequence[records.EpochWithBranches]:
    """The recorded epochs of a job with their branches, ordered by run, trial and epoch; of one run, trial or epoch
    alone where that is given."""
    wanted = [(Run.label, label), (Trial.number, trial), (Epoch.epoch, epoch)]
    of = (Run.job_id == job_id, *(column == value for column, value in wanted if value is not None))
    rows = session.execute(_select_epochs(*of)).all()
    branches: dict[int, list[records.Branch]] = {}
    for row in session.execute(_select_branches(*of)):
        branches.setdefault(row.epoch_id, []).append(record_of(records.Branch, row))
    return [record_of(records.EpochWithBranches, row, branches=tuple(branches.get(row.id, ()))) for row in rows]


def epochs_of_trial(session: Session, trial_id: int) -> Sequence[records.Epoch]:
    """The recorded epochs of a trial, in order of their numbers."""
    return records_of(records.Epoch, session.execute(_select_epochs(Epoch.trial_id == trial_id)))


def branches_of(session: Session, job_id: str, epoch: int | None = None) -> Sequence[records.BranchOfEpoch]:
    """The branches of a job, or of one epoch of each of its trials, ordered by run, trial, epoch and number."""
    query = _select_branches(Run.job_id == job_id)
    rows = session.execute(query if epoch is None else query.where(Epoch.epoch == epoch))
    return records_of(records.BranchOfEpoch, rows)


def branches_of_epoch(session: Session, epoch_id: int) -> Sequence[records.Branch]:
    """The branches of an epoch, given by its id, in the order in which they were tried."""
    query = select(*columns_of(Branch, records.Branch)).where(Branch.epoch_id == epoch_id).order_by(Branch.number)
    return records_of(records.Branch, session.execute(query))


def latest_epochs(session: Session, job_ids: Sequence[str]) -> dict[str, records.Epoch]:
    """The newest epoch of the first trial of each job's first run, by job id; a job without one is left out."""
    first = select(func.min(Run.id)).where(Run.job_id.in_(job_ids)).group_by(Run.job_id)
    last = (
        select(Epoch.trial_id, func.max(Epoch.epoch).label("epoch"))
        .join(Trial, Trial.id == Epoch.trial_id)
        .where(Trial.run_id.in_(first), Trial.number == 1)
        .group_by(Epoch.trial_id)
        .subquery()
    )
    same = and_(Epoch.trial_id == last.c.trial_id, Epoch.epoch == last.c.epoch)
    rows = session.execute(_select_epochs().add_columns(Run.job_id).join(last, same))
    return {row.job_id: record_of(records.Epoch, row) for row in rows}


def costs_of(session: Session, job_id: str) -> Sequence[records.EpochCostOfRun]:
    """What every epoch of a job took and came to, in the order in which they were recorded."""
    query = (
        select(Run.label.label("label"), Trial.seed, *columns_of(Epoch, records.EpochCostOfRun))
        .join(Trial, Trial.run_id == Run.id)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .where(Run.job_id == job_id)
        .order_by(Epoch.recorded_at, Epoch.id)
    )
    return records_of(records.EpochCostOfRun, session.execute(query))


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
) -> Page[records.HistoryStep]:
    """A page of the epochs of all jobs that the filters fit: newest jobs first, inside a job by run, trial and epoch.
    Optimizer and batch are the trial's, where a search chose them, else the job's. Raises InvalidInput when `cursor` is
    none of this list."""
    its_optimizer, its_batch = _optimizer_of_trial(), _batch_of_trial()
    query = (
        select(
            Job.number.label("job_number"),
            Run.id.label("run_id"),
            Job.id.label("job_id"),
            Job.model,
            Job.dataset,
            its_optimizer.label("optimizer"),
            its_batch.label("global_batch_size"),
            *RUN_COLUMNS,
            Trial.number.label("trial"),
            Trial.seed,
            *columns_of(Epoch, records.HistoryStep),
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
        later = tuple_(Run.id, Trial.number, Epoch.epoch) > tuple_(*after)
        query = query.where(or_(Job.number < number, and_(Job.number == number, later)))
    page = page_of(session.execute(query).all(), limit, lambda row: (row.job_number, row.run_id, row.trial, row.epoch))
    return Page(records_of(records.HistoryStep, page.items), page.next_cursor)


def _optimizer_of_trial() -> ColumnElement[Any]:
    searched = Trial.config["optimizer"]  # its name, or a document with one
    return func.coalesce(Trial.config["optimizer", "name"].as_string(), searched.as_string(), Job.optimizer)


def _batch_of_trial() -> ColumnElement[Any]:
    return func.coalesce(Trial.config["global_batch_size"].as_integer(), Job.global_batch_size)


def _select_epochs(*of: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Epochs that these conditions hold for, by run, trial and epoch."""
    query: Select[*tuple[Any, ...]] = select(
        *RUN_COLUMNS, Trial.number.label("trial"), *columns_of(Epoch, records.Epoch)
    )
    return _of_runs(query.select_from(Epoch)).where(*of).order_by(Run.id, Trial.number, Epoch.epoch)


def _select_branches(*of: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Branches that these conditions hold for, by run, trial, epoch and number."""
    query: Select[*tuple[Any, ...]] = select(
        *RUN_COLUMNS, Trial.number.label("trial"), Epoch.epoch, *columns_of(Branch, records.BranchOfEpoch)
    )
    query = _of_runs(query.select_from(Branch).join(Epoch, Epoch.id == Branch.epoch_id))
    return query.where(*of).order_by(Run.id, Trial.number, Epoch.epoch, Branch.number)


def _of_runs(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    return query.join(Trial, Trial.id == Epoch.trial_id).join(Run, Run.id == Trial.run_id)


# --- changes ---------------------------------------------------------------------------------------------


def insert_epoch(session: Session, trial_id: int, record: EpochRecord, *, attempt: int, recorded_at: datetime) -> None:
    """Insert an epoch of a trial as an attempt has reported it, with its branches and layers."""
    session.add(
        Epoch(
            **record.model_dump(exclude={"label", "trial", "branches", "layers"}),
            trial_id=trial_id,
            attempt=attempt,
            fingerprint=record.fingerprint(),
            recorded_at=recorded_at,
            branches=[Branch(**branch.model_dump()) for branch in record.branches],
            layers=[] if record.layers is None else _layers(record.layers),
        )
    )
    session.flush()


def _layers(record: LayersRecord) -> list[Layer]:
    columns = zip(record.names, record.lwn, record.lgn, record.trust_ratio or repeat(None), strict=False)
    same = {"first_step": record.first_step, "every": record.every}
    return [
        Layer(number=number, name=name, lwn=lwn, lgn=lgn, trust_ratio=ratio, **same)
        for number, (name, lwn, lgn, ratio) in enumerate(columns, start=1)
    ]


def discard_epoch(session: Session, epoch: records.Epoch) -> None:
    """Delete an epoch with its branches and layers; the samples that it took are kept as lost by its trial."""
    lost = Trial.lost_samples + epoch.samples
    session.execute(update(Trial).where(Trial.id == epoch.trial_id).values(lost_samples=lost))
    session.execute(delete(Epoch).where(Epoch.id == epoch.id))
