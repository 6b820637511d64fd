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


def names_of(record: type[Any]) -> list[str]:
    """The names of the record's fields; a query whose first columns have them, in this order, is read fastest."""
    return [one.name for one in fields(record)]


def record_of(record: type[R], row: Row[*tuple[Any, ...]], *, prefix: str = "", **more: Any) -> R:
    """The record whose fields are columns of the row, labelled `prefix` + field, or stand in `more`."""
    names, pick = _picked(cast(Hashable, record), row._fields, prefix, frozenset(more))
    return _made(record, names, [row if pick is None else pick(row)], [more])[0]


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
    others = None if more is None else [more(row) for row in found]
    names, pick = _picked(cast(Hashable, record), found[0]._fields, "", frozenset(others[0] if others else ()))
    return _made(record, names, found if pick is None else map(pick, found), others)


def _made(
    record: type[R],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    others: Iterable[Mapping[str, Any]] | None,
) -> list[R]:
    """Records with these fields, the first of each row, and with others. By its own call a frozen class sets its fields
    one by one, in twice the time."""
    made = []
    for row in rows:
        one = record.__new__(record)
        vars(one).update(zip(names, row))  # noqa: B905 - a row may go on; `strict` makes a page take a tenth longer
        made.append(one)
    if others is not None:
        for one, its in zip(made, others, strict=True):
            vars(one).update(its)
    return made


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
) -> tuple[Sequence[str], Callable[[Sequence[Any]], Sequence[Any]] | None]:
    """The fields of the record but those in `without`, two or more, and what picks their values out of a row with these
    columns; None where the first columns are those, in their order. It is looked up once for each query: a page has
    hundreds of rows."""
    names = [name for name in names_of(cast(type[Any], record)) if name not in without]
    wanted = [prefix + name for name in names]
    if list(columns[: len(names)]) == wanted:
        return names, None
    places = {column: place for place, column in enumerate(columns)}
    return names, itemgetter(*(places[column] for column in wanted))
