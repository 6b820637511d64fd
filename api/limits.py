"""What the HTTP server takes at most: connections, streams, and the time that each part of a request may take."""

import logging
import resource
from dataclasses import dataclass
from typing import Self

from service.settings import Settings

log = logging.getLogger("forerun")

MAX_TARGET_BYTES = 8 * 1024  # path and query of a request; the longest that the client sends take a tenth of it
MAX_HEADER_BYTES = 16 * 1024  # all header fields of a request together
MAX_DESCRIPTORS = 65_536  # more is of no use, and there are programs that go through all that there may be
LINGER_SECONDS = 5.0  # how long a body is still taken in after its request was answered, for the answer to be read


@dataclass(frozen=True)
class Limits:
    """The limits of a server. Seconds are those from the first to the last byte: a byte now and then does not extend
    them."""

    connections: int = 2000
    event_streams: int = 1000
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    keep_alive_seconds: int = 30
    write_seconds: float = 60.0

    @classmethod
    def of(cls, settings: Settings, descriptors: int) -> Self:
        """The limits that the settings ask for, in a process that may have so many file descriptors open: connections
        take half of them at most, and streams of events half of the connections. What had to be lowered is logged."""
        connections = _at_most(
            "max_connections", settings.max_connections, descriptors // 2, "raise `ulimit -n` for more"
        )
        streams = _at_most(
            "max_event_streams",
            settings.max_event_streams,
            connections // 2,
            "it may be half of FORERUN_MAX_CONNECTIONS",
        )
        return cls(
            connections=connections,
            event_streams=streams,
            header_seconds=settings.header_seconds,
            body_seconds=settings.body_seconds,
            keep_alive_seconds=settings.keep_alive_seconds,
            write_seconds=settings.write_seconds,
        )


def raise_descriptor_limit() -> int:
    """Let this process, and those that it starts, have as many file descriptors open as the system allows it, up to
    MAX_DESCRIPTORS, and return their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def _at_most(setting: str, wanted: int, possible: int, why: str) -> int:
    if wanted > possible:
        log.warning("FORERUN_%s = %d is lowered to %d: %s", setting.upper(), wanted, possible, why)
    return min(wanted, possible)
