"""One service, and so one Ray head, for all end-to-end tests that do not end it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running_service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data_dir = os.environ.get("FORERUN_DATA_DIR", "data")
    home: Path = tmp_path_factory.mktemp("service")
    with running_service(home, FORERUN_DATA_DIR=str(Path(data_dir).absolute()), FORERUN_RAY_NUM_CPUS="2") as running:
        yield running
