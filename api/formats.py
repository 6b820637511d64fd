"""The format in which an answer goes out, and the link to the next page."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import Request
from pydantic_core import to_json as to_json_by_pydantic
from starlette.responses import Response

from service.store.pages import Page
from service.wire.answers import Answer

MEDIA_TYPES = {"json": "application/json", "csv": "text/csv", "png": "image/png", "svg": "image/svg+xml"}


def chosen_format(wanted: str | None, accept: str, offered: Sequence[str]) -> str:
    """The format of `offered` to answer in: `wanted` where the query names one, else the one that the Accept header
    gives most weight, and of equals the first."""
    if wanted is not None:
        return wanted
    weights = dict(map(_weighed, accept.split(",")))

    def weight(name: str) -> float:  # the most specific range decides (RFC 9110, 12.5.1)
        media_type = MEDIA_TYPES[name]
        ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        return next((weights[name] for name in ranges if name in weights), 0.0)

    return max(offered, key=weight)


def file_answer(content: str | bytes, kind: str, name: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is offered in several formats. All but JSON get a file name to be saved by, `name` with the ending
    `kind`."""
    response = Response(content, media_type=MEDIA_TYPES[kind], headers={"Vary": "Accept", **(headers or {})})
    if kind != "json":
        how = "attachment" if kind == "csv" else "inline"
        response.headers["Content-Disposition"] = f'{how}; filename="{name}.{kind}"'
    return response


def json_answer(answer: Answer, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as JSON, as it is: what FastAPI is handed as a model it checks once more, in a thread of its own."""
    return Response(to_json(answer), status, headers, media_type=MEDIA_TYPES["json"])


def to_json(answer: Answer | Page[Any]) -> bytes:
    """The JSON of an answer, or of a page of records whose fields are those of an answer: the bytes that Pydantic
    writes, in a third of its time."""
    try:
        return orjson.dumps(answer, default=vars, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:  # a number beyond 64 bits, in what a user wrote
        return to_json_by_pydantic(answer, inf_nan_mode="null")


def documented_formats(*formats: str) -> dict[str, Any]:
    """The OpenAPI description of an answer that is offered in these formats beside JSON."""
    kinds = {"csv": {"type": "string"}, "svg": {"type": "string"}, "png": {"type": "string", "format": "binary"}}
    return {"content": {MEDIA_TYPES[name]: {"schema": kinds[name]} for name in formats}}


def next_page(request: Request, cursor: str | None) -> dict[str, str]:
    """The header `Link` that leads to the next page (RFC 8288), or no header where `cursor` is None, after the last
    page."""
    if cursor is None:
        return {}
    others = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
    return {"Link": f'<{request.url.path}?{urlencode([*others, ("cursor", cursor)])}>; rel="next"'}


NEXT_PAGE: dict[str, Any] = {
    "headers": {"Link": {"description": "The next page, if there is one.", "schema": {"type": "string"}}}
}  # what the OpenAPI document says of it


def _weighed(media_range: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in media_range.split(";"))
    q = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
    try:
        return name, float(q)
    except ValueError:
        return name, 0.0
