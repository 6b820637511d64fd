"""Telemetry of layers in SQL as it is read: one record for each layer and epoch."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select, tuple_

from service.store.engine import Session
from service.store.pages import Page, decode_cursor, page_of
from service.store.records import LayerEpoch
from service.store.rows import columns_of, records_of
from service.store.tables import Epoch, Layer, Run, Trial
from service.store.trials import RUN_COLUMNS


def layers_of(
    session: Session,
    job_id: str,
    *,
    label: str | None = None,
    trial: int | None = None,
    layer: str | None = None,
    first_epoch: int | None = None,
    last_epoch: int | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page[LayerEpoch]:
    """A page of the telemetry of a job that the filters fit, ordered by run, trial, epoch and layer, the layers from
    the input on. Raises InvalidInput when `cursor` is none of this list."""
    query = _layers(job_id, label, trial, layer, first_epoch, last_epoch).limit(limit + 1)
    if cursor is not None:
        query = query.where(tuple_(Run.id, Trial.number, Epoch.epoch, Layer.number) > tuple_(*decode_cursor(cursor, 4)))
    page = page_of(session.execute(query).all(), limit, lambda row: (row.run_id, row.trial, row.epoch, row.number))
    return Page(records_of(LayerEpoch, page.items), page.next_cursor)


def layers_of_training(
    session: Session,
    job_id: str,
    *,
    label: str | None,
    trial: int,
    layer: str | None,
    first_epoch: int | None,
    last_epoch: int | None,
    most_epochs: int,
) -> Sequence[LayerEpoch]:
    """The telemetry of one trial, of the job's first run unless a label is given, ordered by epoch and layer; of every
    second, third, … epoch alone where there are more than `most_epochs`."""
    if label is None:
        label = session.scalar(select(Run.label).where(Run.job_id == job_id).order_by(Run.id).limit(1))
    query = _layers(job_id, label, trial, layer, first_epoch, last_epoch)
    numbers = query.with_only_columns(Epoch.epoch, maintain_column_froms=True).order_by(None).distinct()
    epochs = sorted(session.scalars(numbers))
    kept = epochs[:: max(1, -(-len(epochs) // most_epochs))]
    return records_of(LayerEpoch, session.execute(query.where(Epoch.epoch.in_(kept))))


def _layers(
    job_id: str,
    label: str | None,
    trial: int | None,
    layer: str | None,
    first_epoch: int | None,
    last_epoch: int | None,
) -> Select[*tuple[Any, ...]]:
    """The fields of LayerEpoch, and `run_id` and `number`, by which the rows go."""
    query: Select[*tuple[Any, ...]] = (
        select(
            Run.id.label("run_id"),
            Layer.number,
            *RUN_COLUMNS,
            Trial.number.label("trial"),
            Epoch.epoch,
            Epoch.attempt,
            Layer.name.label("layer"),
            *columns_of(Layer, LayerEpoch),
        )
        .join(Trial, Trial.run_id == Run.id)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .join(Layer, Layer.epoch_id == Epoch.id)
        .where(Run.job_id == job_id)
        .order_by(Run.id, Trial.number, Epoch.epoch, Layer.number)
    )
    wanted = [(Run.label, label), (Trial.number, trial), (Layer.name, layer)]
    query = query.where(*(column == value for column, value in wanted if value is not None))
    if first_epoch is not None:
        query = query.where(Epoch.epoch >= first_epoch)
    if last_epoch is not None:
        query = query.where(Epoch.epoch <= last_epoch)
    return query
