"""The limits that a process can keep."""

import logging
import resource
from collections.abc import Iterator

import pytest

from api.limits import Limits, raise_descriptor_limit
from service.settings import Settings


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_defaults_are_those_of_the_settings(caplog: pytest.LogCaptureFixture) -> None:
    assert Limits.of(Settings(), 20_000) == Limits()
    assert caplog.messages == []


def test_what_the_descriptors_do_not_bear_is_lowered_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        limits = Limits.of(Settings(max_connections=1000, max_event_streams=200), 1024)
        assert (limits.connections, limits.event_streams) == (512, 200)
        assert Limits.of(Settings(max_connections=100), 1024).event_streams == 50
    assert caplog.messages == [
        "FORERUN_MAX_CONNECTIONS = 1000 is lowered to 512: raise `ulimit -n` for more",
        "FORERUN_MAX_EVENT_STREAMS = 1000 is lowered to 50: it may be half of FORERUN_MAX_CONNECTIONS",
    ]


def test_a_process_may_open_as_many_files_as_the_system_allows() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    assert raise_descriptor_limit() == min(hard, 65_536)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 65_536), hard)
    assert raise_descriptor_limit() == min(hard, 65_536)
