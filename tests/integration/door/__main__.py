"""The API in a process of its own, without Ray: `python -m tests.integration.door DATABASE_URL FOLDER`. It prints its
port once it accepts requests, and ends with SIGTERM."""

import sys
from pathlib import Path

from api.app import create_app
from api.deps import Services
from api.limits import Limits, raise_descriptor_limit
from api.server import Server, listening_socket
from service.settings import Settings
from service.store.engine import Store
from tests.contract.conftest import FakeFleet


def main(url: str, folder: Path) -> None:
    limits = Limits.of(Settings(), raise_descriptor_limit())
    services = Services(Store(url), FakeFleet(), folder, data_is_local=True, max_event_streams=limits.event_streams)
    with listening_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        Server(create_app(services), "warning", lambda: print(port, flush=True), limits).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
