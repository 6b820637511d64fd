"""The sockets of the server."""

import asyncio
import socket

import pytest

from api.server import USER_TIMEOUT_MS, listening_socket


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_accepted_connection_does_not_wait_for_acknowledgements(host: str) -> None:
    async def options_of_an_accepted_connection(listener: socket.socket) -> tuple[int, int]:
        accepted: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connection = transport.get_extra_info("socket")
                options = (socket.TCP_NODELAY, socket.TCP_USER_TIMEOUT)
                accepted.set_result(tuple(connection.getsockopt(socket.IPPROTO_TCP, option) for option in options))
                transport.close()

        server = await asyncio.get_running_loop().create_server(Protocol, sock=listener)
        _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        try:
            return await asyncio.wait_for(accepted, 10)
        finally:
            writer.close()
            server.close()

    listener = listening_socket(host, 0)
    nodelay, user_timeout = asyncio.run(options_of_an_accepted_connection(listener))
    assert nodelay != 0
    assert user_timeout == USER_TIMEOUT_MS
