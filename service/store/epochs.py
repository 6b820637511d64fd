"""Epochs and their branches in SQL, of one job and of all: queries and changes."""

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from itertools import repeat
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, delete, func, or_, select, tuple_

from service.store import records
from service.store.engine import Session
from service.store.pages import ROWS, Page, decode_cursor, page_of
from service.store.rows import Unindexed, columns_of, names_of, record_of, records_by, records_of
from service.store.tables import BRANCHES, EPOCHS, JOBS, RUNS, TRIALS, Branch, Epoch, Layer, Run, Trial
from service.store.trials import LABEL_COLUMNS, RUN_COLUMNS, count_epoch, discount_epoch
from service.wire.states import JobState
from service.wire.worker import EpochRecord, LayersRecord


def get_epoch(session: Session, trial_id: int, epoch: int) -> records.Epoch | None:
    """The epoch of that number of a trial; None when it is not recorded."""
    row = session.execute(_select_epochs(Epoch.trial_id == trial_id, Epoch.epoch == epoch)).one_or_none()
    return None if row is None else record_of(records.Epoch, row)


def last_epoch(session: Session, trial_id: int) -> int:
    """The number of the last recorded epoch of a trial; 0 when none is recorded."""
    return session.scalar(select(Trial.epochs_done).where(Trial.id == trial_id)) or 0


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
    given = {"label": label, "trial": trial, "epoch": epoch}
    wanted = {name: value for name, value in given.items() if value is not None}
    epochs, its_branches = _of_job(frozenset(wanted))
    rows = session.execute(epochs, {"job_id": job_id, **wanted}).all()
    its = session.execute(its_branches, {"job_id": job_id, **wanted}).all()
    branches = records_by("epoch_id", records.Branch, its)
    return records_of(records.EpochWithBranches, rows, lambda row: {"branches": tuple(branches.get(row.id, ()))})


def lr_steps_of(session: Session, job_id: str) -> Sequence[records.LrStep]:
    """The learning-rate history of a job, ordered by run, trial and epoch."""
    candidates: dict[int, list[float]] = {}
    for epoch_id, learning_rate in session.execute(_CANDIDATES, {"job_id": job_id}).all():
        candidates.setdefault(epoch_id, []).append(learning_rate)
    rows = session.execute(_LR_STEPS, {"job_id": job_id}).all()
    return records_of(records.LrStep, rows, lambda row: {"candidates": candidates.get(row.id, ())})


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


def results_of_trials(session: Session, trial_ids: Collection[int]) -> dict[int, list[records.EpochResult]]:
    """What the recorded epochs of these trials came to, in their order, by the ids of the trials; a trial without one
    is left out."""
    rows = session.execute(_RESULTS, {"trial_ids": list(trial_ids)}).all()
    return records_by("trial_id", records.EpochResult, rows)


def costs_of(session: Session, job_id: str) -> Sequence[records.EpochCostOfRun]:
    """What every epoch of a job took and came to, in the order in which they were recorded."""
    return records_of(records.EpochCostOfRun, session.execute(_COSTS, {"job_id": job_id}))


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
    given: dict[str, Any] = {"model": model, "dataset": dataset, "optimizer": optimizer, "global_batch_size": batch}
    given |= {"method": method, "label": label, "state": list(state) or None}
    wanted = {name: value for name, value in given.items() if value is not None}
    place = {} if cursor is None else dict(zip(_PLACE, decode_cursor(cursor, len(_PLACE)), strict=True))
    query = _page_of_all(frozenset(wanted), bool(place))
    rows = session.execute(query, {**wanted, **place, "rows": limit + 1}).all()
    page = page_of(rows, limit, lambda row: (row.job_number, row.run_id, row.trial, row.epoch))
    return Page(records_of(records.HistoryStep, page.items), page.next_cursor)


# Queries are made once and run with parameters: to make one takes longer than to run it.
_PLACE = ("job_number", "run_id", "trial", "epoch")  # which a cursor of all epochs is made of
_runs_trials_epochs = RUNS.join(TRIALS, TRIALS.c.run_id == RUNS.c.id).join(EPOCHS, EPOCHS.c.trial_id == TRIALS.c.id)
_LR_STEPS = (
    select(EPOCHS.c.id, *LABEL_COLUMNS, TRIALS.c.number.label("trial"))
    .add_columns(*columns_of(EPOCHS, records.LrStep))
    .select_from(_runs_trials_epochs)
    .where(RUNS.c.job_id == bindparam("job_id"))
    .order_by(RUNS.c.id, TRIALS.c.number, EPOCHS.c.epoch)
)
_CANDIDATES = (
    select(BRANCHES.c.epoch_id, BRANCHES.c.learning_rate)
    .select_from(_runs_trials_epochs.join(BRANCHES, BRANCHES.c.epoch_id == EPOCHS.c.id))
    .where(RUNS.c.job_id == bindparam("job_id"))
    .order_by(BRANCHES.c.epoch_id, BRANCHES.c.number)
)
_COSTS = (
    select(RUNS.c.label, TRIALS.c.seed, *columns_of(EPOCHS, records.EpochCostOfRun))
    .select_from(_runs_trials_epochs)
    .where(RUNS.c.job_id == bindparam("job_id"))
    .order_by(EPOCHS.c.recorded_at, EPOCHS.c.id)
)
_RESULTS = (
    select(EPOCHS.c.trial_id, *columns_of(EPOCHS, records.EpochResult))
    .where(EPOCHS.c.trial_id.in_(bindparam("trial_ids", expanding=True)))
    .order_by(EPOCHS.c.epoch)
)


@cache
def _of_job(filters: frozenset[str]) -> tuple[Select[*tuple[Any, ...]], Select[*tuple[Any, ...]]]:
    """The queries for the epochs of a job and for their branches: of those of `label`, `trial` and `epoch` alone that
    are among the filters."""
    columns = {"label": RUNS.c.label, "trial": TRIALS.c.number, "epoch": EPOCHS.c.epoch}
    of = [RUNS.c.job_id == bindparam("job_id"), *(columns[name] == bindparam(name) for name in sorted(filters))]
    place = (RUNS.c.id, TRIALS.c.number, EPOCHS.c.epoch)
    epochs = select(*LABEL_COLUMNS, TRIALS.c.number.label("trial"), *columns_of(EPOCHS, records.Epoch)).select_from(
        _runs_trials_epochs
    )
    branches = select(*columns_of(BRANCHES, records.Branch), BRANCHES.c.epoch_id)
    branches = branches.select_from(_runs_trials_epochs.join(BRANCHES, BRANCHES.c.epoch_id == EPOCHS.c.id))
    return epochs.where(*of).order_by(*place), branches.where(*of).order_by(*place, BRANCHES.c.number)


@cache
def _page_of_all(filters: frozenset[str], has_cursor: bool) -> Select[*tuple[Any, ...]]:
    """The query for a page of the epochs of all jobs by these columns."""
    config = TRIALS.c.config
    searched = (config["optimizer", "name"].as_string(), config["optimizer"].as_string())  # a document, or a name
    columns = {
        "model": JOBS.c.model,
        "dataset": JOBS.c.dataset,
        "optimizer": func.coalesce(*searched, JOBS.c.optimizer),
        "global_batch_size": func.coalesce(config["global_batch_size"].as_integer(), JOBS.c.global_batch_size),
        "method": RUNS.c.method,
        "label": RUNS.c.label,
    }
    place = (RUNS.c.id, TRIALS.c.number, EPOCHS.c.epoch)
    shown = {**columns, "job_id": JOBS.c.id, "trial": TRIALS.c.number, "seed": TRIALS.c.seed}
    of_record = (shown[one].label(one) if one in shown else EPOCHS.c[one] for one in names_of(records.HistoryStep))
    query = (
        select(*of_record, JOBS.c.number.label("job_number"), RUNS.c.id.label("run_id"))
        .select_from(JOBS.join(_runs_trials_epochs, RUNS.c.job_id == Unindexed(JOBS.c.id)))
        # without an attempt there are no epochs but those of the job that a retry goes on from
        .where(or_(JOBS.c.attempt > 0, JOBS.c.retry_of.is_not(None)))
        .where(*(column == bindparam(name) for name, column in columns.items() if name in filters))
        .order_by(JOBS.c.number.desc(), *place)
        .limit(ROWS)
    )
    if "state" in filters:
        query = query.where(JOBS.c.state.in_(bindparam("state", expanding=True)))
    if has_cursor:
        number, *after = [bindparam(name, type_=BigInteger) for name in _PLACE]
        # the first of both is what an index can be searched by
        query = query.where(JOBS.c.number <= number, or_(JOBS.c.number < number, tuple_(*place) > tuple_(*after)))
    return query


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
    count_epoch(session, trial_id, record.epoch, record.val_accuracy, record.samples)


def _layers(record: LayersRecord) -> list[Layer]:
    columns = zip(record.names, record.lwn, record.lgn, record.trust_ratio or repeat(None), strict=False)
    same = {"first_step": record.first_step, "every": record.every}
    return [
        Layer(number=number, name=name, lwn=lwn, lgn=lgn, trust_ratio=ratio, **same)
        for number, (name, lwn, lgn, ratio) in enumerate(columns, start=1)
    ]


def discard_epoch(session: Session, epoch: records.Epoch) -> None:
    """Delete an epoch with its branches and layers; the samples that it took are kept as lost by its trial."""
    session.execute(delete(Epoch).where(Epoch.id == epoch.id))
    discount_epoch(session, epoch.trial_id, epoch.samples)
