"""Fixtures for every test."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from service.errors import DatasetMissing
from service.spec.catalog import require_files

pytest.register_assert_rewrite("tests.databases")  # which modules import that are no tests
# several processes train at once: more threads only get in each other's way
os.environ.setdefault("OMP_NUM_THREADS", "1")
# ignored when a script runs the tests with &; children inherit
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST, Fashion-MNIST and CIFAR-10; FORERUN_REQUIRE_DATA=1 makes their absence a failure."""
    without = pytest.fail if os.environ.get("FORERUN_REQUIRE_DATA") == "1" else pytest.skip
    if "FORERUN_DATA_DIR" not in os.environ:
        without("FORERUN_DATA_DIR is not set: get_datasets.py DIR fetches what it should name")
    folder = Path(os.environ["FORERUN_DATA_DIR"])
    try:
        for name in ("mnist", "fashion-mnist", "cifar10"):
            require_files(name, folder)
    except DatasetMissing as error:
        without(f"{error}; get_datasets.py {folder} fetches them")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """schemathesis calls a test of several operations by one name; of equal names, pytest-xdist would run one alone."""
    seen: Counter[str] = Counter()
    for item in items:
        name = item.nodeid
        seen[name] += 1
        if seen[name] > 1:
            item._id = item._id.with_params(str(seen[name]))  # type: ignore[attr-defined]
    assert len({item.nodeid for item in items}) == len(items), "pytest has renamed what holds an item's name"


class FewServices(LoadFileScheduling):
    """Shares tests out to processes: a file's tests stay together, as they share what is slow to start; those of
    tests/e2e share one service."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/e2e" if nodeid.startswith("tests/e2e/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return FewServices(config, log)
