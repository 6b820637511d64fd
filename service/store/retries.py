"""What a retry takes over of the job that it goes on from, in SQL: its trials, the epochs of their newest trajectories,
and the events that told of them. All of it belongs to attempt 0 of the new job, before its first one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, case, func, insert, literal, select, update
from sqlalchemy.orm import aliased

from service.algorithms.trajectory import newest_trajectory
from service.store.engine import Session
from service.store.epochs import epochs_of
from service.store.events import append_old_events
from service.store.tables import Base, Branch, Epoch, Event, Job, Layer, Run, Trial
from service.store.trials import KEPT_OF_EPOCHS, count_epochs_of_job
from service.wire.states import TERMINAL

CHUNK = 500  # rows by their ids in one statement
T = TypeVar("T")

OldRun, NewRun = aliased(Run), aliased(Run)
OldTrial, NewTrial = aliased(Trial), aliased(Trial)
OldEpoch, NewEpoch = aliased(Epoch), aliased(Epoch)


def live_retry(session: Session, job_id: str) -> str | None:
    """The id of a job that goes on from that one and has not ended; None when there is none."""
    query = select(Job.id).where(Job.retry_of == job_id, Job.state.not_in(TERMINAL))
    return session.scalar(query.order_by(Job.number).limit(1))


def copy_progress(session: Session, source: str, job_id: str) -> None:
    """Copy what is recorded of the job `source`, which has ended, to a new job that has its runs and no trials."""
    _copy_trials(session, source, job_id)
    by_trial: dict[int, list[Any]] = {}
    for epoch in epochs_of(session, source):
        by_trial.setdefault(epoch.trial_id, []).append(epoch)
    kept = [epoch for epochs in by_trial.values() for epoch in newest_trajectory(epochs)]
    for ids in _chunks([epoch.id for epoch in kept]):
        _copy_epochs(session, job_id, ids)
    count_epochs_of_job(session, job_id)
    _copy_events(session, source, job_id, {(epoch.label, epoch.trial, epoch.epoch) for epoch in kept})


def _copy_trials(session: Session, source: str, job_id: str) -> None:
    """The trials of every run. Those that ended with their job alone have not ended: they run on, or have yet to
    begin."""
    names = _columns(Trial, "id", "run_id", "state", *KEPT_OF_EPOCHS)
    begun = select(Epoch.id).where(Epoch.trial_id == OldTrial.id).exists() | OldTrial.key.is_not(None)
    with_its_job = (OldTrial.state == "stopped") & OldTrial.message.is_(None)
    state = case((with_its_job & begun, "running"), (with_its_job, "pending"), else_=OldTrial.state)
    rows = (
        select(NewRun.id, state, *(getattr(OldTrial, name) for name in names))
        .select_from(OldTrial)
        .join(OldRun, OldTrial.run_id == OldRun.id)
        .join(NewRun, NewRun.label == OldRun.label)
        .where(OldRun.job_id == source, NewRun.job_id == job_id)
        .order_by(NewRun.id, OldTrial.number)
    )
    session.execute(insert(Trial).from_select(["run_id", "state", *names], rows))
    of_job = select(func.count()).select_from(Trial).join(Run).where(Run.job_id == job_id).scalar_subquery()
    session.execute(update(Job).where(Job.id == job_id).values(trials=of_job))


def _copy_epochs(session: Session, job_id: str, ids: Sequence[int]) -> None:
    """The epochs of these ids, with their branches and layers."""
    same_trial = (NewRun.label == OldRun.label) & (NewTrial.number == OldTrial.number)
    names = _columns(Epoch, "id", "trial_id", "attempt")
    epochs = (
        select(NewTrial.id, literal(0), *(getattr(OldEpoch, name) for name in names))
        .select_from(OldEpoch)
        .join(OldTrial, OldEpoch.trial_id == OldTrial.id)
        .join(OldRun, OldTrial.run_id == OldRun.id)
        .join(NewRun, NewRun.job_id == job_id)
        .join(NewTrial, (NewTrial.run_id == NewRun.id) & same_trial)
        .where(OldEpoch.id.in_(ids))
    )
    session.execute(insert(Epoch).from_select(["trial_id", "attempt", *names], epochs))
    for table in (Branch, Layer):
        names = _columns(table, "id", "epoch_id")
        rows = (
            select(NewEpoch.id, *(getattr(table, name) for name in names))
            .select_from(table)
            .join(OldEpoch, table.epoch_id == OldEpoch.id)
            .join(OldTrial, OldEpoch.trial_id == OldTrial.id)
            .join(OldRun, OldTrial.run_id == OldRun.id)
            .join(NewRun, NewRun.job_id == job_id)
            .join(NewTrial, (NewTrial.run_id == NewRun.id) & same_trial)
            .join(NewEpoch, (NewEpoch.trial_id == NewTrial.id) & (NewEpoch.epoch == OldEpoch.epoch))
            .where(OldEpoch.id.in_(ids))
        )
        session.execute(insert(table).from_select(["epoch_id", *names], rows))


def _copy_events(session: Session, source: str, job_id: str, kept: set[tuple[str, int, int]]) -> None:
    """What was told of trials, and last of each epoch that is kept, in its order."""
    told: dict[object, Event] = {}
    of_source: ColumnElement[bool] = (Event.job_id == source) & Event.kind.in_(["trial", "epoch"])
    for event in session.scalars(select(Event).where(of_source).order_by(Event.number)):
        epoch = (event.data["label"], event.data["trial"], event.data.get("epoch"))
        if event.kind == "trial":
            told[event.number] = event
        elif epoch in kept:
            told.pop(epoch, None)
            told[epoch] = event
    append_old_events(
        session,
        job_id,
        [
            (event.kind, event.data | ({"attempt": 0} if event.kind == "epoch" else {}), event.created_at)
            for event in told.values()
        ],
    )


def _columns(table: type[Base], *others: str) -> list[str]:
    return [column.name for column in table.__table__.columns if column.name not in others]


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
