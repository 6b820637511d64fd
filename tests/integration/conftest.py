import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from service.cluster import RayCluster
from service.head import EmbeddedHead

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return value


def stub_cluster(dashboard_url: str, token: str | None) -> RayCluster:
    return RayCluster(dashboard_url, token, sys.executable, module="tests.integration.job_stub")


@pytest.fixture(scope="session")
def ray_head() -> Iterator[EmbeddedHead]:
    """One Ray for all tests that do not end it: a start takes 8 s and more."""
    with EmbeddedHead(num_cpus=2, num_gpus=0) as head:
        yield head


@pytest.fixture
def cluster(ray_head: EmbeddedHead) -> RayCluster:
    return stub_cluster(ray_head.dashboard_url, ray_head.token)
