"""From the rows of a query to frozen records, by the names of columns and fields."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, FromClause, Row
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.store.tables import Base

R = TypeVar("R")
_NOTHING: Mapping[str, Any] = {}


class Unindexed(FunctionElement[Any]):
    """A column as it is, by which SQLite is to look nothing up: it begins with the table of the column then, in the
    order that a page goes by, where it would read all of another and sort. PostgreSQL knows how many rows there are."""

    inherit_cache = True


@compiles(Unindexed)
def _as_it_is(element: Unindexed, compiler: SQLCompiler, **kwargs: Any) -> str:
    return compiler.process(element.clauses, **kwargs)


@compiles(Unindexed, "sqlite")
def _behind_a_plus(element: Unindexed, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"+{compiler.process(element.clauses, **kwargs)}"


def columns_of(table: type[Base] | FromClause, record: type[Any], *, prefix: str = "") -> list[ColumnElement[Any]]:
    """The columns of a table, or of an alias of it, that are fields of the record, labelled `prefix` + field."""
    if isinstance(table, FromClause):
        return [table.c[one.name].label(prefix + one.name) for one in fields(record) if one.name in table.c]
    known = table.__table__.columns
    return [getattr(table, one.name).label(prefix + one.name) for one in fields(record) if one.name in known]


def record_of(record: type[R], row: Row[*tuple[Any, ...]], *, prefix: str = "", **more: Any) -> R:
    """The record whose fields are columns of the row, labelled `prefix` + field, or stand in `more`."""
    names, pick = _picked(cast(Hashable, record), row._fields, prefix, frozenset(more))
    return _made(record, zip(names, pick(row), strict=True), more)


def records_of(
    record: type[R],
    rows: Iterable[Row[*tuple[Any, ...]]],
    more: Callable[[Row[*tuple[Any, ...]]], Mapping[str, Any]] | None = None,
) -> list[R]:
    """The records whose fields are columns of the rows, one for each row, in their order; `more` gives the fields that
    are none, or other than the column."""
    found = list(rows)
    if not found:
        return []
    others = [more(row) for row in found] if more is not None else [_NOTHING] * len(found)
    names, pick = _picked(cast(Hashable, record), found[0]._fields, "", frozenset(others[0]))
    picked = zip(map(pick, found), others, strict=True)
    return [_made(record, zip(names, values, strict=True), other) for values, other in picked]


def _made(record: type[R], values: Iterable[tuple[str, Any]], more: Mapping[str, Any]) -> R:
    """A record with these fields. By its own call a frozen class sets them one by one, in twice the time."""
    one = record.__new__(record)
    vars(one).update(values, **more)
    return one


def records_by(
    key: str,
    record: type[R],
    rows: Iterable[Row[*tuple[Any, ...]]],
    more: Callable[[Row[*tuple[Any, ...]]], Mapping[str, Any]] | None = None,
) -> dict[Any, list[R]]:
    """The records of the rows, as `records_of` makes them, in their order, by the values of the column `key`."""
    rows = list(rows)
    by: dict[Any, list[R]] = {}
    if rows:
        place = rows[0]._fields.index(key)
        for row, one in zip(rows, records_of(record, rows, more), strict=True):
            by.setdefault(row[place], []).append(one)
    return by


@cache
def _picked(
    record: Hashable, columns: tuple[str, ...], prefix: str, without: frozenset[str]
) -> tuple[Sequence[str], Callable[[Sequence[Any]], Sequence[Any]]]:
    """The fields of the record but those in `without`, two or more, and what picks their values out of a row with these
    columns. It is looked up once for each query: a page has hundreds of rows."""
    names = [one.name for one in fields(cast(type[Any], record)) if one.name not in without]
    places = {column: place for place, column in enumerate(columns)}
    return names, itemgetter(*(places[prefix + name] for name in names))
