"""A training waits for a disk that is full, and leaves nothing unfinished on it."""

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from service.wire.worker import EpochRecord, TrialRecord
from tests.builders import epoch_record
from tests.disks import fill
from tests.processes import wait_until
from tests.unit.workers.test_report import Clock
from workers import checkpoint
from workers.checkpoint import Position
from workers.disk import await_room, errno_of, until_written, write_whole
from workers.records_file import RecordsFile

pytest_plugins = ["tests.disks"]

FOLDER = Path("/jobs")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tenacity.time", clock)
    monkeypatch.setattr("tenacity.nap.time", clock)
    return clock


def fails(*errors: BaseException) -> Callable[[], str]:
    left = list(errors)

    def write() -> str:
        if left:
            raise left.pop(0)
        return "written"

    return write


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, "No space left on device"),
        (OSError(errno.EDQUOT, "x"), "Disk quota exceeded"),
        (OSError(errno.EIO, "x"), "Input/output error"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "No space left on device",
        ),
    ],
)
def test_what_is_waited_for(clock: Clock, error: Exception, words: str) -> None:
    told: list[str | None] = []
    assert until_written(fails(error, error), FOLDER, told.append) == "written"
    assert told == [f"a disk that can be written: /jobs ({words})"] * 2 + [None]


def test_pauses_grow_to_a_minute_and_never_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    until_written(fails(*[FULL] * 1000), FOLDER, lambda _: None)
    assert clock.pauses[:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert clock.now - 1000 > 16 * 3600
    assert caplog.messages == [
        "the training waits for a disk that can be written: /jobs (No space left on device)",
        "/jobs can be written to again",
    ]


def test_nothing_is_told_where_nothing_is_wrong(clock: Clock) -> None:
    told: list[str | None] = []
    until_written(fails(), FOLDER, told.append)
    assert (told, clock.pauses) == ([], [])


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EACCES, "Permission denied"), OSError(errno.ENOENT, "x"), SafetensorError("no"), ValueError("no")],
    ids=repr,
)
def test_another_error_is_raised_at_once(clock: Clock, error: Exception) -> None:
    with pytest.raises(type(error)):
        until_written(fails(error), FOLDER, lambda _: None)
    assert clock.pauses == []


def test_errors_are_known_by_their_number() -> None:
    assert errno_of(SafetensorError("I/O error: Input/output error (os error 5)")) == errno.EIO
    assert errno_of(SafetensorError("invalid header")) is None
    assert errno_of(KeyboardInterrupt()) is None


# --- the real thing ----------------------------------------------------------------------------------------

TENSORS = {"weight": torch.zeros(250_000)}  # a megabyte
POSITION = Position(learning_rate=0.1)


class Waiting:
    """A write in a thread that finds the disk full, and waits until there is room."""

    def __init__(self, write: Callable[[Callable[[str | None], None]], object]) -> None:
        self.told: list[str | None] = []
        self._thread = threading.Thread(target=write, args=(self.told.append,))
        self._thread.start()
        wait_until(lambda: self.told)

    def end(self, full: Path) -> None:
        assert self._thread.is_alive()
        full.unlink()
        self._thread.join(30)
        assert self.told[-1] is None


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.disk.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("workers.disk.LONGEST_PAUSE_S", 0.02)


def test_a_checkpoint_waits_for_room_and_leaves_no_rest(small_disk: Path, no_pauses: None) -> None:
    full = fill(small_disk)
    with pytest.raises((OSError, SafetensorError)) as caught:
        checkpoint.save(small_disk / "stpt-1", "epoch-000001-a1", TENSORS, POSITION)
    assert errno_of(caught.value) == errno.ENOSPC
    assert not list(small_disk.glob("stpt-1/.*"))
    full.unlink()
    with (small_disk / "other").open("wb") as other:
        other.write(bytes(1_500_000))  # now the tensors begin to be written
    with pytest.raises((OSError, SafetensorError)) as caught:
        checkpoint.save(small_disk / "stpt-1", "epoch-000001-a1", TENSORS, POSITION)
    assert errno_of(caught.value) == errno.ENOSPC
    assert not list(small_disk.glob("stpt-1/.*"))

    def write(tell: Callable[[str | None], None]) -> None:
        ref = until_written(
            lambda: checkpoint.save(small_disk / "stpt-1", "epoch-000001-a1", TENSORS, POSITION), small_disk, tell
        )
        checkpoint.load(small_disk / "stpt-1", ref, TENSORS)

    waiting = Waiting(write)
    waiting.end(small_disk / "other")
    assert waiting.told[0] == f"a disk that can be written: {small_disk} (No space left on device)"
    assert [path.name for path in (small_disk / "stpt-1").iterdir()] == ["epoch-000001-a1"]


def test_a_file_is_whole_or_absent(small_disk: Path) -> None:
    write_whole(small_disk / "a", b"1234")
    full = fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(small_disk / "b", bytes(100_000))
    assert sorted(path.name for path in small_disk.iterdir()) == ["a", "full"]
    full.unlink()
    write_whole(small_disk / "b", bytes(100_000))


def test_a_start_waits_for_room(small_disk: Path, no_pauses: None) -> None:
    full = fill(small_disk)
    waiting = Waiting(lambda tell: await_room(small_disk / "job-1-a1", tell))
    waiting.end(full)
    assert list((small_disk / "job-1-a1").iterdir()) == []


def test_records_have_no_half_line(small_disk: Path, no_pauses: None) -> None:
    records = RecordsFile(small_disk)
    records.epoch(EpochRecord.model_validate(epoch_record(1)))
    full = fill(small_disk)

    def write(tell: Callable[[str | None], None]) -> None:
        records = RecordsFile(small_disk, tell)
        for epoch in range(2, 12):  # the first may have room in the last block
            records.epoch(EpochRecord.model_validate(epoch_record(epoch)))
        records.trial(TrialRecord(label="stpt", trial=1, seed=0, epochs=11, state="completed"))

    waiting = Waiting(write)
    assert all(json.loads(line) for line in (small_disk / "records.jsonl").read_text().splitlines())
    waiting.end(full)
    assert [record.epoch for record in records.records()] == list(range(1, 12))
    assert len(records.trial_records()) == 1
