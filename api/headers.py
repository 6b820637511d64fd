"""Header fields of every answer that keep a browser from doing more with it than it should."""

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing may be loaded, run, framed or sent from an answer. A page names what it needs in a policy of its own.
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# A figure opened by itself is a document, which could run scripts: it is shown as if it came from nowhere. Its styles
# are its own.
_SVG = f"{_NOTHING}; style-src 'unsafe-inline'; sandbox"
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": _NOTHING,
    "Cache-Control": "no-store",  # what jobs come to is nobody else's, and new every minute
}


def page_policy(scripts: Iterable[str]) -> str:
    """The Content-Security-Policy of a page of the service's own, whose inline scripts are these: it may load scripts,
    styles and images from here, call the API, and no more."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"{_NOTHING}; connect-src 'self'; img-src 'self' data:; script-src 'self' {hashes}; "
        "style-src 'self' 'unsafe-inline'"
    )


class SecurityHeaders:
    """Middleware that gives every answer the fields of SECURITY_HEADERS, but for those that the route has set. A figure
    in SVG is put into a sandbox."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("Content-Type", "").startswith("image/svg+xml"):
                    headers["Content-Security-Policy"] = _SVG
                if "ETag" in headers:  # it may be kept, if it is asked for again whether it is still the same
                    headers.setdefault("Cache-Control", "no-cache")
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)
