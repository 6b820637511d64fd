"""Answers that are tables, and go out as JSON, CSV or a figure."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Annotated, Literal

from fastapi import Query
from starlette.responses import Response

from api.deps import FORMAT
from api.formats import documented_formats, file_answer, to_json
from api.problems import documented
from service.wire.answers import Comparison, ExperimentStudy, Study
from service.wire.csv_text import csv_text

TABLE_FORMATS = ("json", "csv", "png", "svg")
TABLE_ANSWERS = {200: documented_formats(*TABLE_FORMATS[1:]), **documented(404, 422, 503)}
TableFormat = Annotated[Literal["json", "csv", "png", "svg"] | None, Query(alias="format", description=FORMAT)]


def table_answer(
    answer: Comparison | Study | ExperimentStudy,
    columns: Sequence[str],
    kind: str,
    name: str,
    draw: Callable[[Literal["png", "svg"]], bytes],
) -> Response:
    """The answer in the format `kind`: its items as CSV, a line each; the figure that `draw` makes of them; or the
    whole answer as JSON. `columns` are those of the CSV, `name` is what the file is called."""
    content: str | bytes
    match kind:
        case "csv":
            content = csv_text(columns, chain.from_iterable(item.table_rows() for item in answer.items))
        case "png" | "svg":
            content = draw(kind)
        case _:
            content = to_json(answer)
    return file_answer(content, kind, name)
