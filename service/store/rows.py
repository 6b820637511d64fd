"""From the rows of a query to frozen records, by the names of columns and fields."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row

from service.store.tables import Base

R = TypeVar("R")


def columns_of(table: type[Base], record: type[Any], *, prefix: str = "") -> list[ColumnElement[Any]]:
    """The columns of a table, or of an alias of it, that are fields of the record, labelled `prefix` + field."""
    known = table.__table__.columns
    return [getattr(table, one.name).label(prefix + one.name) for one in fields(record) if one.name in known]


def record_of(record: type[R], row: Row[*tuple[Any, ...]], *, prefix: str = "", **more: Any) -> R:
    """The record whose fields are columns of the row, labelled `prefix` + field, or stand in `more`."""
    columns = row._mapping
    names = [one.name for one in fields(record) if one.name not in more]  # type: ignore[arg-type]
    return record(**{name: columns[prefix + name] for name in names}, **more)


def records_of(record: type[R], rows: Iterable[Row[*tuple[Any, ...]]]) -> list[R]:
    """The records whose fields are columns of the rows, one for each row, in their order."""
    return [record_of(record, row) for row in rows]
