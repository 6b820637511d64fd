"""Requests whose path, query or header fields are too long are refused before anything looks at them."""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.limits import MAX_HEADER_BYTES, MAX_TARGET_BYTES
from api.problems import problem

URI_TOO_LONG = (
    "uri_too_long",
    "URI too long",
    f"path and query may have {MAX_TARGET_BYTES} bytes at most; shorten them",
)
HEADERS_TOO_LARGE = (
    "request_header_fields_too_large",
    "Request header fields too large",
    f"the header fields may have {MAX_HEADER_BYTES} bytes at most; send fewer, or shorter ones",
)


class Sizes:
    """Middleware that answers 414 where path and query are too long, and 431 where the header fields are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
                await problem(Request(scope), 414, *URI_TOO_LONG)(scope, receive, send)
                return
            if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > MAX_HEADER_BYTES:
                await problem(Request(scope), 431, *HEADERS_TOO_LARGE)(scope, receive, send)
                return
        await self.app(scope, receive, send)
