"""The count of a process grows with whatever its training does, and stands still when that is blocked."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from service.errors import TrainingFailed
from service.spec.job import JobSpec
from tests.processes import wait_until
from tests.unit.service.specs import small
from workers.build import build_trainer
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


def test_an_image_that_never_ends_is_no_progress(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    fifo = tmp_path / "5.png"
    os.mkfifo(fifo)
    images = ImageFiles((*(str(tmp_path / f"{number}.png") for number in range(4)), str(fifo)), 8)
    start = progress.so_far()

    def read() -> None:
        with pytest.raises(TrainingFailed):
            images[torch.arange(5)]

    reading = threading.Thread(target=read)
    reading.start()
    wait_until(lambda: progress.so_far() == start + 4)
    assert reading.is_alive()
    with fifo.open("wb"):
        pass  # it ends, empty
    reading.join(30)
    assert progress.so_far() == start + 4
