"""A disk that is full, for real. A test module takes it with `pytest_plugins = ["tests.disks"]`.

small_disk      a folder that is a file system of its own, with room for 2 MiB
disk_of_32_mib  another one, with room for 32 MiB
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


@contextmanager
def disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of its own in `folder`, with so much room. Raises CalledProcessError for whoever may not mount
    one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    subprocess.run(mount, capture_output=True, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def disk_of_a_test(folder: Path, mib: int) -> Iterator[Path]:
    """The same, for a test that is skipped where nobody may mount one."""
    with ExitStack() as stack:
        try:
            stack.enter_context(disk(folder, mib))
        except subprocess.CalledProcessError:
            pytest.skip("only root may mount a file system")
        yield folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of_a_test(tmp_path / "disk", 2) as folder:
        yield folder


@pytest.fixture
def disk_of_32_mib(tmp_path: Path) -> Iterator[Path]:
    with disk_of_a_test(tmp_path / "disk", 32) as folder:
        yield folder


def fill(folder: Path) -> Path:
    """Take all the room that is left, and return the file that has it."""
    file = folder / "full"
    with file.open("wb", buffering=0) as opened:
        for size in (65536, 4096, 1):
            try:
                while True:
                    opened.write(bytes(size))
            except OSError:
                continue
    return file
