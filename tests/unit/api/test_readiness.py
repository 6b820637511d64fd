"""Probes are few, however many ask."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.readiness import Readiness
from service.store.engine import Store

pytest_plugins = ["tests.databases"]


class Probed:
    """A store that counts how often it is written to."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.probes = 0
        probe = store.try_to_write

        def counted() -> None:
            self.probes += 1
            probe()

        monkeypatch.setattr(store, "try_to_write", counted)


def test_an_answer_holds_for_a_second(sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, probed = 100.0, Probed(sqlite_store, monkeypatch)
    readiness = Readiness(sqlite_store, [tmp_path], 0, lambda: now)
    assert [readiness.troubles() for _ in range(20)] == [[]] * 20
    assert probed.probes == 1
    now = 100.99
    readiness.troubles()
    assert probed.probes == 1
    now = 101.0
    readiness.troubles()
    assert probed.probes == 2


def test_many_at_once_are_one_probe(sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed, together = Probed(sqlite_store, monkeypatch), threading.Barrier(8)
    readiness = Readiness(sqlite_store, [tmp_path], 0, lambda: 100.0)

    def ask(_: int) -> list[str]:
        together.wait(30)
        return list(readiness.troubles())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [[]] * 8
    assert probed.probes == 1


def test_the_folder_with_the_least_room_counts(sqlite_store: Store, tmp_path: Path) -> None:
    free = {"/small": 50 * 2**20, "/large": 500 * 2**20}
    folders = [tmp_path / "not" / "there yet", tmp_path]
    assert Readiness(sqlite_store, folders, 2**20).troubles() == []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.readiness._free_bytes", lambda folder: free[str(folder)])
        [trouble] = Readiness(sqlite_store, [Path("/large"), Path("/small")], 100 * 2**20).troubles()
    assert trouble == "50 MiB are free for the service's files, and FORERUN_MIN_FREE_MB asks for 100; make room"
