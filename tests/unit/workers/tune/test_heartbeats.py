"""How far the trials of a search are together, by what each of them writes."""

from pathlib import Path

import pytest

from tests.disks import fill
from tests.processes import wait_until
from workers.engine import progress
from workers.tune import heartbeats
from workers.tune.heartbeats import so_far, telling

pytest_plugins = ["tests.disks"]


def test_the_driver_reads_what_trials_have_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "TELL_S", 0.001)
    folder = tmp_path / "progress"
    assert so_far(folder) == 0
    with telling(folder / "a"):
        wait_until(lambda: so_far(folder) == progress.so_far())
        progress.advance()
        wait_until(lambda: so_far(folder) == progress.so_far())
        with telling(folder / "b"):
            wait_until(lambda: so_far(folder) == 2 * progress.so_far())
    assert so_far(folder) == 2 * progress.so_far()
    (folder / "c").write_text("")  # it is just being made
    assert so_far(folder) == 2 * progress.so_far()


def test_a_full_disk_takes_new_numbers(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "TELL_S", 0.001)
    with telling(small_disk / "progress" / "a"):
        wait_until(lambda: so_far(small_disk / "progress") == progress.so_far())
        fill(small_disk)
        progress.advance()
        wait_until(lambda: so_far(small_disk / "progress") == progress.so_far())
        with telling(small_disk / "progress" / "b"):  # no room for that: no matter
            pass
