"""Requests for another host are refused.

Otherwise a web page in the user's browser could have its own name point to this machine (DNS rebinding) and read and
write here. An address in place of a name cannot be pointed elsewhere, so any will do.
"""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import problem


class KnownHosts:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            if not is_known(host, scope["app"].state.services.hosts):
                detail = f"{host!r} is not a name of this service; FORERUN_ALLOWED_HOSTS may name it"
                response = problem(Request(scope), 421, "misdirected_request", "Misdirected request", detail)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)


def is_known(host: str, names: Collection[str]) -> bool:
    """Whether a Host header, with or without a port, has an IP address or one of the names."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ip_address(name)
        return True
    except ValueError:
        return name in names
