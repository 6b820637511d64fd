"""Sends messages to webhooks, signed as Standard Webhooks has it (standardwebhooks.com).

No redirect is followed, no proxy asked, no credential sent but the signature, and of an answer nothing but its status
is kept.
"""

import asyncio
import json
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpcore
from standardwebhooks import Webhook

from service.webhooks.hosts import AllowedHosts

SECONDS = 10.0  # for a whole message, from the name's resolution to the end of the answer
MAX_ANSWER_BYTES = 4096  # are read of an answer, and thrown away, so that its sender can end
GONE = 410


@dataclass(frozen=True)
class Message:
    """A message to a webhook: the same `id`, and the same body, however often it is sent."""

    id: str
    type: str
    at: datetime  # when what it tells of happened
    data: dict[str, Any]

    def body(self) -> str:
        """The JSON document that is sent."""
        document = {"type": self.type, "timestamp": self.at.isoformat().replace("+00:00", "Z"), "data": self.data}
        return json.dumps(document)


@dataclass(frozen=True)
class Sent:
    """What became of a message: the HTTP status of the answer, and why it counts as a failure, None when it does
    not."""

    status: int | None
    failure: str | None


class Sender:
    """Sends messages to webhooks on `allowed` hosts, each within `seconds`."""

    def __init__(self, allowed: AllowedHosts, seconds: float = SECONDS) -> None:
        self.allowed, self._seconds = allowed, seconds
        self._tls: ssl.SSLContext | None = None

    async def send(self, url: str, secret: str, message: Message) -> Sent:
        """Send a message to the webhook at `url`, and say what became of it; nothing is raised."""
        problem = self.allowed.problem_with(url)  # the setting may be another than when the webhook was made
        if problem is not None:
            return Sent(None, problem)
        try:
            async with asyncio.timeout(self._seconds):
                status = await self._post(url, _signed(secret, message), message.body().encode())
        except TimeoutError:
            return Sent(None, f"no answer within {self._seconds:g} s")
        except (
            OSError,
            UnicodeError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            return Sent(None, f"no answer: {str(error) or type(error).__name__}"[:500])
        if 300 <= status < 400:
            return Sent(status, f"it answered with {status}: redirects are not followed; register the URL it leads to")
        return Sent(status, None if 200 <= status < 300 else f"it answered with {status}")

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        if self._tls is None:
            self._tls = httpcore.default_ssl_context()
        backend = _CheckedAddresses(self.allowed)
        async with (
            httpcore.AsyncConnectionPool(ssl_context=self._tls, max_connections=1, network_backend=backend) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as response,
        ):
            size = 0
            async for chunk in response.aiter_stream():
                size += len(chunk)
                if size > MAX_ANSWER_BYTES:
                    break
            return response.status


def _signed(secret: str, message: Message) -> dict[str, str]:
    """The headers of a message: those of Standard Webhooks, with a signature of now."""
    now = datetime.now(UTC)
    return {
        "Content-Type": "application/json",
        "User-Agent": "Forerun",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message.id, now, message.body()),
    }


class _CheckedAddresses(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked: the name is resolved here, once, and never again on the way."""

    def __init__(self, allowed: AllowedHosts) -> None:
        self._allowed, self._backend = allowed, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address of the host that takes one. Raises ConnectError where one of them may not
        be connected to."""
        addresses = await resolve(host, port)
        if not all(map(self._allowed.permits, addresses)):
            raise httpcore.ConnectError(
                f"{host} leads to an address that is not public; FORERUN_WEBHOOK_HOSTS may name the address itself"
            )
        for address in addresses[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._backend.sleep(seconds)


async def resolve(host: str, port: int) -> list[str]:
    """The IP addresses of a host, each once. Raises OSError where it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # SOCK_STREAM
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
