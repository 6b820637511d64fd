"""Records are frozen and made by name."""

from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass

import pytest
from sqlalchemy import select
from sqlalchemy.orm import aliased

from service.store import records
from service.store.rows import columns_of, record_of, records_of
from service.store.tables import Event, IdempotencyKey
from tests.integration.jobs_in_sql import submit

pytest_plugins = ["tests.databases"]

KINDS = [kind for kind in vars(records).values() if is_dataclass(kind)]


@dataclass(frozen=True)
class Told:
    kind: str
    number: int
    by: str


def test_every_record_is_frozen():
    assert {records.Job, records.Trial, records.Epoch, records.Branch} < set(KINDS)
    for kind in KINDS:
        with pytest.raises(FrozenInstanceError):
            setattr(object.__new__(kind), fields(kind)[0].name, 1)


def test_a_record_is_made_by_name_in_whatever_order_the_columns_come(sqlite_store):
    submit(sqlite_store)
    with sqlite_store.read() as session:
        row = session.execute(select(Event.number, Event.id, Event.kind)).one()
        assert record_of(Told, row, by="whom") == Told(kind="state", number=1, by="whom")
        with pytest.raises(KeyError, match="by"):
            records_of(Told, [row])


def test_columns_are_the_fields_that_a_table_has():
    assert [column.name for column in columns_of(Event, Told)] == ["kind", "number"]
    assert [column.name for column in columns_of(aliased(Event), Told, prefix="last_")] == ["last_kind", "last_number"]
    assert [column.name for column in columns_of(IdempotencyKey, Told)] == []


def test_columns_with_a_prefix_make_a_record_beside_another(sqlite_store):
    submit(sqlite_store)
    other = aliased(Event)
    query = select(*columns_of(Event, Told), *columns_of(other, Told, prefix="other_")).join(
        other, other.id == Event.id
    )
    with sqlite_store.read() as session:
        row = session.execute(query).one()
    assert record_of(Told, row, prefix="other_", by="a") == record_of(Told, row, by="a") == Told("state", 1, "a")


def test_no_secret_is_printed():
    attempt = records.Attempt(1, "job-1-a1", "of the ticket", "of the token", None, None, None, False, *[None] * 6)
    assert "of the ticket" not in repr(attempt)
    assert "of the token" not in repr(attempt)
