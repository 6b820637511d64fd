"""Answers as CSV, which a spreadsheet may open without running anything (OWASP, "CSV Injection")."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from service.spec.names import printable

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # how a cell begins that a spreadsheet takes for a formula


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as CSV, below a header line of `columns`. The values of a list share one cell, separated by spaces; None
    is an empty cell. Text that a spreadsheet would take for a formula has an apostrophe before it, which a spreadsheet
    does not show; a number stays a number. U+FFFD stands in place of characters that do not print."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        joined = " ".join(map(str, value))
        return _text(joined) if any(isinstance(one, str) for one in value) else joined
    if value is None or isinstance(value, int | float):
        return value
    return _text(str(value))


def _text(text: str) -> str:
    return printable(f"'{text}" if text.startswith(_FORMULA) else text)
