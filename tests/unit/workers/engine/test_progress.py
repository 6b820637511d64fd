"""The count of a process grows with whatever its training does, and stands still when that is blocked."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from service.errors import TrainingFailed
from service.spec.job import JobSpec
from tests.processes import wait_until
from tests.unit.service.specs import small
from workers.build import build_trainer
from workers.datasets import load
from workers.datasets.load import ImageFiles, load_data
from workers.engine import progress
from workers.engine.groups import Workers

CPU = torch.device("cpu")


def test_every_piece_of_work_counts_once_whoever_does_it() -> None:
    before = progress.so_far()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: progress.advance(), range(1000)))
    assert progress.so_far() - before in range(1000 - 8, 1001)  # a late thread may have written an earlier number
    progress.advance()
    assert progress.so_far() == before + 1001


def test_training_and_evaluation_count() -> None:
    spec = JobSpec.model_validate(small(global_batch_size=64))
    workers = Workers(CPU)
    trainer = build_trainer(spec, load_data(spec.dataset, Path("data"), CPU), workers)
    start = progress.so_far()
    trainer.train(1, range(3), [0.1] * 3, workers.world, 1)
    assert progress.so_far() == start + 3
    trainer.evaluate(trainer.data.test, workers.world)
    assert progress.so_far() == start + 4  # 360 samples are one forward pass


def test_an_image_that_never_comes_is_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not answer, say."""
    come = threading.Event()

    def decode(path: str, image_size: int, _: Path) -> np.ndarray:
        assert not path.endswith("4.png") or come.wait(30)
        return np.zeros((image_size, image_size, 3), np.uint8)

    monkeypatch.setattr(load, "_decode", decode)
    images = ImageFiles(tuple(f"{number}.png" for number in range(5)), 8, tmp_path)
    start = progress.so_far()
    reading = threading.Thread(target=images.__getitem__, args=(torch.arange(5),))
    reading.start()
    wait_until(lambda: progress.so_far() == start + 4)
    assert reading.is_alive()
    come.set()
    reading.join(30)
    assert progress.so_far() == start + 5


def test_an_image_that_is_a_fifo_ends_the_reading(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    fifo = tmp_path / "5.png"
    os.mkfifo(fifo)
    images = ImageFiles((*(str(tmp_path / f"{number}.png") for number in range(4)), str(fifo)), 8, tmp_path)
    start = progress.so_far()
    with pytest.raises(TrainingFailed, match="is no regular file"):  # nobody waits for it
        images[torch.arange(5)]
    assert progress.so_far() == start + 4
