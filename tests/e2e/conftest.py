"""One service, and so one Ray head, for all end-to-end tests that do not end it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running_service


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's data folder: the real datasets, where they are, and room for trees of the tests' own."""
    folder = tmp_path_factory.mktemp("data")
    if "FORERUN_DATA_DIR" in os.environ:
        for dataset in Path(os.environ["FORERUN_DATA_DIR"]).absolute().iterdir():
            if dataset.is_dir():  # no link, which would lead out of the folder
                shutil.copytree(dataset, folder / dataset.name, copy_function=_linked)
    return folder


def _linked(source: str, target: str) -> None:
    """The same file under another name; on another file system a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


@pytest.fixture(scope="package")  # gone before the unit tests: an idle Ray head takes a tenth of a core
def service(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("service")
    with running_service(home, FORERUN_DATA_DIR=str(data_dir), FORERUN_RAY_NUM_CPUS="2") as running:
        yield running
