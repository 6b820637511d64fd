"""A retry takes over the files of another job, whole or not at all."""

from pathlib import Path

import pytest

from tests.disks import fill
from workers import retry
from workers.disk import until_written
from workers.retry import take_over

pytest_plugins = ["tests.disks"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    checkpoint = tmp_path / "job-1" / "checkpoints" / "stpt-1" / "epoch-000001-a1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.safetensors").write_bytes(b"tensors")
    (checkpoint / "manifest.json").write_text("{}")
    return tmp_path / "job-1"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tensors_are_linked_and_the_rest_is_copied(source: Path, tmp_path: Path) -> None:
    take_over(source, tmp_path / "job-2")
    assert files(tmp_path / "job-2") == files(source)
    links = {path.name: path.stat().st_nlink for path in (tmp_path / "job-2").rglob("*") if path.is_file()}
    assert links == {"state.safetensors": 2, "manifest.json": 1}


def test_a_file_system_without_links(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("workers.retry.os.link", refuse)
    take_over(source, tmp_path / "job-2")
    assert files(tmp_path / "job-2") == files(source)


def test_it_happens_once_and_whole(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object, **__: object) -> None:
        (tmp_path / ".job-2" / "half").mkdir(parents=True)
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(retry.shutil, "copytree", cut)
        with pytest.raises(OSError, match="power cut"):
            take_over(source, tmp_path / "job-2")
    assert not (tmp_path / "job-2").exists()
    take_over(source, tmp_path / "job-2")
    (source / "later").touch()
    take_over(source, tmp_path / "job-2")
    assert not (tmp_path / "job-2" / "later").exists()
    take_over(tmp_path / "nowhere", tmp_path / "job-3")
    assert not (tmp_path / "job-3").exists()


def test_it_waits_for_room_and_leaves_no_rest_meanwhile(
    source: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    (source / "tune").write_bytes(bytes(100_000))
    full, told = fill(small_disk), []

    def tell(reason: str | None) -> None:
        told.append(reason)
        assert list(small_disk.iterdir()) in ([full], [small_disk / "job-2"])
        full.unlink(missing_ok=True)

    until_written(lambda: take_over(source, small_disk / "job-2"), small_disk, tell)
    assert files(small_disk / "job-2") == files(source)
    assert told == [f"a disk that can be written: {small_disk} (No space left on device)", None]
