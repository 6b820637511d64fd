"""Requests that are for another host than this one are refused.

Otherwise a web page in the user's browser could have its own name point to this machine (DNS rebinding) and read and
write here. An IP address in place of a name cannot be pointed elsewhere, so every address is accepted.
"""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import problem
from service.errors import shortened


class KnownHosts:
    """Middleware that answers 421 to requests whose Host header is neither an IP address nor one of the service's
    names."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            if not is_known(host, scope["app"].state.services.hosts):
                detail = f"{shortened(host, 200)!r} is not a name of this service; FORERUN_ALLOWED_HOSTS may name it"
                response = problem(Request(scope), 421, "misdirected_request", "Misdirected request", detail)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)


def is_known(host: str, names: Collection[str]) -> bool:
    """Whether a Host header, with or without a port, has an IP address or one of `names`."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ip_address(name)
        return True
    except ValueError:
        return name in names
