"""Every error that leaves the API is an RFC 9457 problem document, and short however long the request was.

Its `type` is `urn:forerun:error:<code>`. The codes are those of service/errors.py; what the HTTP layer itself refuses
has the status in words as its code (`not_found`, `method_not_allowed`, …, `internal`).
"""

import logging
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from service.errors import (
    MAX_ERRORS,
    MAX_FIELD,
    MAX_MESSAGE,
    MAX_VALUE,
    DatabaseUnavailable,
    FieldError,
    ForerunError,
    InvalidInput,
    NotAuthenticated,
    NoWeights,
    TooManyRequests,
    shortened,
)
from service.store.engine import DatabaseError, trouble_of

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "forerun.request_id"  # in the scope of a request
SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # that a client may give a request itself
RETRY_AFTER_SECONDS = 5  # with 503: what is short at present

log = logging.getLogger("forerun.api")


def problem(request: Request, status: int, code: str, title: str, detail: str, **more: Any) -> JSONResponse:
    """A problem document as an answer with this HTTP status; `more` are further members of the document."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    if request_id := request.scope.get(REQUEST_ID):
        more["request_id"] = request_id
    content = document(status, code, title, detail, request.scope["path"], **more)
    return JSONResponse(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def document(status: int, code: str, title: str, detail: str, path: str, **more: Any) -> dict[str, Any]:
    """A problem document about a request for `path`; `more` are further members of it."""
    return {
        "type": f"urn:forerun:error:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": _shown(path),
        **more,
    }


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with problems of these HTTP statuses, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Have the application answer every error with a problem document, and stamp every answer with a request id."""
    app.exception_handler(ForerunError)(_forerun_error)
    app.exception_handler(DatabaseError)(_database_error)
    app.exception_handler(RequestValidationError)(_request_validation_error)
    app.exception_handler(HTTPException)(_http_exception)
    app.add_middleware(Envelope)


async def _forerun_error(request: Request, error: ForerunError) -> JSONResponse:
    more: dict[str, Any] = {}
    if isinstance(error, InvalidInput | NoWeights):
        more["errors"] = [_entry(e) for e in error.errors[:MAX_ERRORS]]
        if len(error.errors) > MAX_ERRORS:
            more["more_errors"] = len(error.errors) - MAX_ERRORS
    response = problem(request, error.status, error.code, error.title, error.detail, **more)
    if isinstance(error, NotAuthenticated):
        response.headers["WWW-Authenticate"] = 'Bearer realm="forerun"'
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


async def _database_error(request: Request, error: DatabaseError) -> JSONResponse:
    """Answer that the database cannot be used at present, which the store logs once. Raises what is a mistake of
    ours."""
    trouble = trouble_of(error)
    if trouble is None:
        raise error
    detail = f"{trouble}; nothing was changed by this request: try again"
    return await _forerun_error(request, DatabaseUnavailable(detail))


async def _request_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer what FastAPI's own checks of path, query and headers have refused in the shape of InvalidInput."""
    entries = [
        # loc is ("query", "state", 0), say
        FieldError(".".join(str(part) for part in e["loc"][1:]), str(e["input"])[:200], e["msg"])
        for e in error.errors()
    ]
    return await _forerun_error(request, InvalidInput(entries))


async def _http_exception(request: Request, error: HTTPException) -> JSONResponse:
    """Answer what the router itself refuses: a path that does not exist, or a method that a path does not take."""
    phrase = HTTPStatus(error.status_code).phrase
    path, methods = _shown(request.scope["path"]), _methods(request)
    details = {
        404: f"nothing is at {path}; /docs lists what there is",
        405: f"{path} takes {methods}, not {request.method}",
    }
    response = problem(
        request,
        error.status_code,
        code=phrase.lower().replace(" ", "_"),
        title=phrase.capitalize(),
        detail=details.get(error.status_code, error.detail),
    )
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = methods
    return response


def _methods(request: Request) -> str:
    """The HTTP methods that the request's path takes; Starlette's own Allow header has those of the first route
    alone."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(taken, ("GET", "HEAD", "POST", "PATCH", "DELETE")))


def _shown(path: str) -> str:
    return quote(shortened(path, MAX_FIELD))


def _entry(error: FieldError) -> dict[str, Any]:
    """The error as an entry of a problem document, without what makes it long."""
    text = error.value if isinstance(error.value, str) else repr(error.value)
    return {
        "field": shortened(error.field, MAX_FIELD),
        "value": error.value if len(text) <= MAX_VALUE else shortened(text, MAX_VALUE),
        "message": shortened(error.message, MAX_MESSAGE),
    }


class Envelope:
    """Middleware around every request: it gives it an id for the log, that of its X-Request-ID where it has a fit one,
    and answers an unexpected exception with a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = scope[REQUEST_ID] = given if SAFE_ID.fullmatch(given) else uuid4().hex
        started = False

        async def send_stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            with bound_contextvars(request_id=request_id):
                await self.app(scope, receive, send_stamped)
        except ClientDisconnect:
            return  # gone while sending its request: nobody to answer
        except Exception:
            log.exception("request %s: %s %r failed", request_id, scope["method"], scope["path"])
            if started:
                raise  # the server can only cut the connection now
            detail = f"an unexpected error; the service's log has it under request {request_id}"
            response = problem(Request(scope), 500, "internal", "Internal error", detail)
            await response(scope, receive, send_stamped)
