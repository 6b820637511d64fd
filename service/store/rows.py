"""From the rows of a query to frozen records, by the names of columns and fields."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import fields
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, FromClause, Row

from service.store.tables import Base

R = TypeVar("R")


def columns_of(table: type[Base] | FromClause, record: type[Any], *, prefix: str = "") -> list[ColumnElement[Any]]:
    """The columns of a table, or of an alias of it, that are fields of the record, labelled `prefix` + field."""
    if isinstance(table, FromClause):
        return [table.c[one.name].label(prefix + one.name) for one in fields(record) if one.name in table.c]
    known = table.__table__.columns
    return [getattr(table, one.name).label(prefix + one.name) for one in fields(record) if one.name in known]


def record_of(record: type[R], row: Row[*tuple[Any, ...]], *, prefix: str = "", **more: Any) -> R:
    """The record whose fields are columns of the row, labelled `prefix` + field, or stand in `more`."""
    names, pick = _picked(cast(Hashable, record), row._fields, prefix, frozenset(more))
    return record(**dict(zip(names, pick(row), strict=True)), **more)


def records_of(record: type[R], rows: Iterable[Row[*tuple[Any, ...]]]) -> list[R]:
    """The records whose fields are columns of the rows, one for each row, in their order."""
    found = list(rows)
    if not found:
        return []
    _, pick = _picked(cast(Hashable, record), found[0]._fields, "", frozenset())
    return [record(*values) for values in map(pick, found)]


@cache
def _picked(
    record: Hashable, columns: tuple[str, ...], prefix: str, without: frozenset[str]
) -> tuple[Sequence[str], Callable[[Sequence[Any]], Sequence[Any]]]:
    """The fields of the record but those in `without`, two or more, and what picks their values out of a row with these
    columns. It is looked up once for each query: a page has hundreds of rows."""
    names = [one.name for one in fields(cast(type[Any], record)) if one.name not in without]
    places = {column: place for place, column in enumerate(columns)}
    return names, itemgetter(*(places[prefix + name] for name in names))
