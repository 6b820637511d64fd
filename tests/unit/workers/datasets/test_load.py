"""Splits of known size that never overlap, batches that depend on their indices alone, and errors with a remedy."""

import gzip
import hashlib
import os
import pickle
import resource
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.algorithms.epoch_plan import count_train_samples
from service.errors import DatasetMissing, InvalidInput, TrainingFailed
from service.spec.catalog import DATASETS
from service.spec.data import FolderDataset, NamedDataset
from workers.datasets import load as datasets
from workers.datasets.load import STATISTICS, Data, Split, load_data

CPU = torch.device("cpu")
TREE = FolderDataset(name="image-folder", path="flowers", image_size=8, validation_fraction=0.25)


def named(name: str) -> NamedDataset:
    return NamedDataset.model_validate({"name": name})


def whole(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.batch(torch.arange(len(split)), CPU)


def sizes(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.validation), len(data.test)


# --- digits ----------------------------------------------------------------------------------------


def published() -> Any:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # seconds, for every worker of pytest

    return load_digits()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load_data(NamedDataset(name="digits"), tmp_path_factory.mktemp("empty"), CPU)


def test_digits_need_no_files_and_have_known_sizes(digits: Data) -> None:
    assert sizes(digits) == (1293, 144, 360)  # 1797 = 1437 + 360; 143.7 rounds to 144
    assert (digits.classes, digits.channels, digits.image_size) == (10, 1, 28)
    images, labels = whole(digits.train)
    assert (images.shape, images.dtype) == ((1293, 1, 28, 28), torch.float32)
    assert (labels.shape, labels.dtype) == ((1293,), torch.int64)


def test_every_digit_is_in_one_split_and_in_one_only(digits: Data) -> None:
    splits = [whole(split) for split in (digits.train, digits.validation, digits.test)]
    seen = Counter(image.numpy().tobytes() for images, _ in splits for image in images)
    assert len(seen) == 1797  # no two of the 1797 digits are equal
    labels = torch.cat([labels for _, labels in splits])
    assert Counter(labels.tolist()) == Counter(published().target.tolist())


def test_splits_are_fixed(digits: Data) -> None:
    """Literals: a different torch, or a different seed of the job, must not move a sample between the splits."""
    assert digits.validation.rows[:8].tolist() == [12, 22, 23, 47, 66, 71, 79, 81]
    assert whole(digits.train)[1][:10].tolist() == [1, 6, 7, 5, 1, 8, 9, 4, 4, 1]
    assert whole(digits.validation)[1][:10].tolist() == [5, 2, 8, 3, 0, 1, 5, 0, 2, 8]
    assert whole(digits.test)[1][:10].tolist() == [2, 3, 4, 9, 8, 5, 1, 1, 9, 1]


def test_splits_do_not_follow_the_global_seed(digits: Data, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = load_data(NamedDataset(name="digits"), tmp_path, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(whole(again.validation), whole(digits.validation), strict=True))


def enlarged(digit: list[list[int]]) -> bytes:
    """28x28 bytes of an 8x8 digit of levels 0 to 16: bilinear, in integers, halves up.

    The centre of pixel i of 28 lies at (i + 1/2) * 8/28 - 1/2 = (4 i - 5) / 14 of 8, held inside the border.
    """

    def neighbours(i: int) -> list[tuple[int, int]]:
        low, part = divmod(min(max(4 * i - 5, 0), 7 * 14), 14)
        return [(low, 14 - part), (min(low + 1, 7), part)]  # (pixel of 8, weight in fourteenths)

    def byte(y: int, x: int) -> int:
        level = sum(digit[v][u] * wv * wu for v, wv in neighbours(y) for u, wu in neighbours(x))  # of 16 * 14 * 14
        return (2 * 255 * level + 16 * 196) // (2 * 16 * 196)

    return bytes(byte(y, x) for y in range(28) for x in range(28))


def test_digits_are_scikit_learns_enlarged_bilinearly(digits: Data) -> None:
    ours = set()
    for images in (digits.train.images, digits.test.images):
        assert isinstance(images, torch.Tensor)
        assert images.dtype == torch.uint8
        ours |= {image.numpy().tobytes() for image in images}
    assert {enlarged(digit) for digit in published().images[::20].astype(int).tolist()} <= ours


@given(st.floats(0.001, 0.5))
@settings(max_examples=10, deadline=None)
def test_validation_is_a_share_of_the_training_split(fraction: float) -> None:
    spec = NamedDataset(name="digits", validation_fraction=fraction)
    data = load_data(spec, Path("/nonexistent"), CPU)
    held_out = max(1, round(1437 * fraction))
    assert sizes(data) == (1437 - held_out, held_out, 360)
    assert sorted(data.train.rows.tolist() + data.validation.rows.tolist()) == list(range(1437))
    assert count_train_samples(spec, Path("/nonexistent")) == 1437 - held_out


def test_a_subset_is_of_the_training_split_alone(digits: Data) -> None:
    data = load_data(NamedDataset(name="digits", train_samples=100), Path("/nonexistent"), CPU)
    assert sizes(data) == (100, 144, 360)
    whole_train = {image.numpy().tobytes() for image in whole(digits.train)[0]}
    assert {image.numpy().tobytes() for image in whole(data.train)[0]} < whole_train
    for ours, theirs in ((data.validation, digits.validation), (data.test, digits.test)):
        assert all(torch.equal(a, b) for a, b in zip(whole(ours), whole(theirs), strict=True))
    larger = load_data(NamedDataset(name="digits", train_samples=1293), Path("/nonexistent"), CPU)
    assert torch.equal(whole(larger.train)[0], whole(digits.train)[0])
    assert len(set(whole(data.train)[1].tolist())) == 10  # drawn from all classes


@given(st.lists(st.integers(0, 143), max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_batch_is_its_samples_bit_for_bit(digits: Data, indices: list[int]) -> None:
    images, labels = digits.validation.batch(torch.tensor(indices, dtype=torch.int64), CPU)
    assert (images.shape, labels.shape) == ((len(indices), 1, 28, 28), (len(indices),))
    for place, index in enumerate(indices):
        image, label = digits.validation.batch(torch.tensor([index]), CPU)
        assert torch.equal(images[place], image[0])
        assert labels[place] == label[0]


# --- the real files --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mnist", "fashion-mnist", "cifar10"])
def real(request: pytest.FixtureRequest, real_data: Path) -> tuple[str, Data]:
    return request.param, load_data(named(request.param), real_data, CPU)


def test_real_datasets_have_the_facts_of_the_catalog(real: tuple[str, Data], real_data: Path) -> None:
    name, data = real
    facts = DATASETS[name]
    held_out = facts.train_samples // 10
    assert sizes(data) == (facts.train_samples - held_out, held_out, 10_000)
    assert count_train_samples(named(name), real_data) == len(data.train)
    assert (data.classes, data.channels, data.image_size) == (facts.classes, facts.channels, facts.image_size)
    for split in (data.train, data.validation, data.test):
        images, labels = split.batch(torch.arange(32), CPU)
        assert images.shape == (32, facts.channels, facts.image_size, facts.image_size)
        assert labels.shape == (32,)
    # every class as often as its publisher says
    per_class = torch.bincount(torch.cat([data.train.labels[data.train.rows], whole(data.validation)[1]])).tolist()
    published = {"mnist": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]}
    assert per_class == published.get(name, [facts.train_samples // 10] * 10)


def test_statistics_are_those_of_the_training_images(real: tuple[str, Data]) -> None:
    name, data = real
    check_statistics(name, data)


def test_statistics_of_digits(digits: Data) -> None:
    check_statistics("digits", digits)


def check_statistics(name: str, data: Data) -> None:
    images = data.train.images
    assert isinstance(images, torch.Tensor)
    for channel, (mean, std) in enumerate(zip(*STATISTICS[name], strict=True)):
        levels = torch.bincount(images[:, channel].flatten(), minlength=256).double()  # a histogram: exact, and small
        values = torch.arange(256, dtype=torch.float64) / 255
        share = levels / levels.sum()
        true_mean = (share * values).sum()
        true_std = (share * (values - true_mean) ** 2).sum().sqrt()
        assert (true_mean.item(), true_std.item()) == pytest.approx((mean, std), abs=6e-5)


def test_batches_are_normalised(real: tuple[str, Data]) -> None:
    _, data = real
    images, _ = data.train.batch(torch.arange(0, len(data.train), 9), CPU)
    assert images.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * data.channels, abs=0.03)
    assert images.std(dim=(0, 2, 3)).tolist() == pytest.approx([1] * data.channels, abs=0.03)


def test_mnist_begins_with_its_well_known_digits(real_data: Path) -> None:
    data = load_data(NamedDataset(name="mnist"), real_data, CPU)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert whole(data.test)[1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


# --- CIFAR-10 as published, and downloads, on small stand-ins ---------------------------------------


def write_pickles(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for cifar-10-batches-py of 4 + 2 images: image i has red i, green 100 + i and blue 200 + i."""
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()

    def batch(name: str, numbers: range) -> list[tuple[str, str]]:
        images = [np.repeat([i, 100 + i, 200 + i], 32 * 32).astype(np.uint8) for i in numbers]
        return [(name, write(name, {"data": np.stack(images), "labels": list(numbers)}))]

    published = torchvision.datasets.CIFAR10
    monkeypatch.setattr(published, "train_list", batch("data_batch_1", range(4)))
    monkeypatch.setattr(published, "test_list", batch("test_batch", range(4, 6)))
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", {"label_names": ["a"] * 10})}
    monkeypatch.setattr(published, "meta", meta)
    small = replace(DATASETS["cifar10"], train_samples=4, test_samples=2)
    monkeypatch.setattr(datasets, "DATASETS", {**DATASETS, "cifar10": small})


def test_cifar10_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pickles(tmp_path, monkeypatch)
    data = load_data(NamedDataset(name="cifar10", validation_fraction=0.25), tmp_path, CPU)
    assert sizes(data) == (3, 1, 2)
    images, labels = whole(data.test)
    assert labels.tolist() == [4, 5]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in STATISTICS["cifar10"])
    pixels = (images * std + mean) * 255
    for image, number in zip(pixels, (4, 5), strict=True):
        expected = torch.tensor([number, 100.0 + number, 200 + number]).view(3, 1, 1).expand(3, 32, 32)
        torch.testing.assert_close(image, expected)


def test_damaged_pickles_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pickles(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"half a file")
    with pytest.raises(DatasetMissing, match=r"cifar-10-batches-py is incomplete or broken.*remove that folder"):
        load_data(NamedDataset(name="cifar10"), tmp_path, CPU)


def idx(values: np.ndarray[Any, Any]) -> bytes:
    """MNIST's file format: unsigned bytes, number of dimensions, each dimension as a big-endian 32-bit integer."""
    header = b"\x00\x00\x08" + bytes([values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served over HTTP in place of MNIST's publisher: 60,000 + 10,000 black images, label i is i mod 10."""
    folder = tmp_path / "publisher"
    folder.mkdir()
    resources = []
    for prefix, samples in (("train", 60_000), ("t10k", 10_000)):
        labels = np.arange(samples) % 10
        for kind, values in (("images-idx3", np.zeros((samples, 28, 28), np.uint8)), ("labels-idx1", labels)):
            packed = gzip.compress(idx(values), compresslevel=1)
            name = f"{prefix}-{kind}-ubyte.gz"
            (folder / name).write_bytes(packed)
            resources.append((name, hashlib.md5(packed, usedforsecurity=False).hexdigest()))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        yield folder
        server.shutdown()


def test_workers_that_start_together_download_once(
    publisher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = []

    class Counted(torchvision.datasets.MNIST):  # type: ignore[misc]
        def download(self) -> None:
            downloads.append(self.root)
            super().download()

    Counted.__name__ = "MNIST"  # torchvision names the folder after the class
    monkeypatch.setitem(datasets.PUBLISHED, "mnist", Counted)
    data_dir = tmp_path / "new" / "data"
    spec = NamedDataset(name="mnist", download=True)
    with ThreadPoolExecutor(3) as workers:
        loaded = list(workers.map(lambda _: load_data(spec, data_dir, CPU), range(3)))
    assert [sizes(data) for data in loaded] == [(54_000, 6_000, 10_000)] * 3
    assert loaded[0].test.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert len(downloads) == 1
    assert {path.name for path in data_dir.iterdir()} - {".mnist.lock"} == {"MNIST"}


def test_a_download_that_breaks_off_leaves_nothing_behind(publisher: Path, tmp_path: Path) -> None:
    last = publisher / "t10k-labels-idx1-ubyte.gz"
    contents = last.read_bytes()
    last.unlink()
    spec, data_dir = NamedDataset(name="mnist", download=True), tmp_path / "data"
    with pytest.raises(DatasetMissing, match=r"mnist could not be downloaded into .*put its files there, or point"):
        load_data(spec, data_dir, CPU)
    assert {path.name for path in data_dir.iterdir()} <= {".mnist.lock"}
    last.write_bytes(contents)
    assert sizes(load_data(spec, data_dir, CPU)) == (54_000, 6_000, 10_000)


@pytest.mark.parametrize("damage", ["short", "long", "other"])
def test_an_idx_file_of_another_size_is_not_read(damage: str, publisher: Path, tmp_path: Path) -> None:
    load_data(NamedDataset(name="mnist", download=True), tmp_path, CPU)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    with path.open("r+b") as file:
        if damage == "other":
            file.write(b"\x00\x00\x0d\x03")
        else:
            file.truncate(10**12 if damage == "long" else 7_840_015)  # a terabyte that takes no disk
    with pytest.raises(
        DatasetMissing, match=r"t10k-images-idx3-ubyte has \d+ bytes, and not the 7840016 of 10000 x 28 x"
    ):
        load_data(NamedDataset(name="mnist"), tmp_path, CPU)


def test_what_is_there_is_not_downloaded_again(publisher: Path, tmp_path: Path) -> None:
    spec = NamedDataset(name="mnist", download=True)
    load_data(spec, tmp_path, CPU)
    for file in publisher.iterdir():
        file.unlink()
    assert sizes(load_data(spec, tmp_path, CPU)) == (54_000, 6_000, 10_000)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "tiny-imagenet"])
def test_absent_files_are_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing) as caught:
        load_data(named(name), tmp_path, CPU)
    for layout in DATASETS[name].layouts:
        assert str(tmp_path / layout) in caught.value.detail
    assert "put its files there, point FORERUN_DATA_DIR at the folder" in caught.value.detail


def test_cifar10_folders_without_a_test_split_are_not_taken_for_the_dataset(tmp_path: Path) -> None:
    write_images(tmp_path / "cifar10" / "train", {"cat": 2, "dog": 1})
    with pytest.raises(DatasetMissing, match="cifar10/test/CLASS/IMAGE"):
        load_data(NamedDataset(name="cifar10"), tmp_path, CPU)


def test_too_few_images_are_not_taken_for_the_dataset(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        write_images(tmp_path / "cifar10" / folder, {"cat": 2, "dog": 1})
    with pytest.raises(DatasetMissing, match=r"3 training and 3 test images, not 50000 and 10000.*remove that folder"):
        load_data(NamedDataset(name="cifar10"), tmp_path, CPU)


@pytest.mark.parametrize(("name", "left"), [("digits", 1293), ("mnist", 54_000), ("tiny-imagenet", 90_000)])
def test_training_samples_of_a_named_dataset_are_known_without_its_files(name: str, left: int, tmp_path: Path) -> None:
    assert count_train_samples(named(name), tmp_path) == left


# --- Tiny ImageNet, on a small tree of its shape -----------------------------------------------------

WNIDS = ("n02124075", "n01443537", "n07734744")  # wnids.txt is not sorted


@pytest.fixture
def tiny_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with 3 x 4 training and 5 validation images; image i of class c has the colour (60 c, 10 i, 99),
    those of val/ the colour (60 c, 200, 99). The first image of each training class is grey, of its level 20 c."""
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(sorted(WNIDS)):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        Image.new("L", (64, 64), 20 * label).save(folder / f"{wnid}_0.JPEG", quality=95)
        for image in range(1, 4):
            colour = (60 * label, 10 * image, 99)
            Image.new("RGB", (64, 64), colour).save(folder / f"{wnid}_{image}.JPEG", quality=95)
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for image, label in enumerate((1, 0, 2, 2, 1)):
        Image.new("RGB", (64, 64), (60 * label, 200, 99)).save(root / "val" / "images" / f"val_{image}.JPEG")
        lines.append(f"val_{image}.JPEG\t{sorted(WNIDS)[label]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "test" / "images").mkdir(parents=True)
    (root / "test" / "images" / "test_0.JPEG").write_bytes(b"nobody reads this one: it has no label")
    small = replace(DATASETS["tiny-imagenet"], train_samples=12, test_samples=5, classes=3)
    monkeypatch.setattr(datasets, "DATASETS", {**DATASETS, "tiny-imagenet": small})
    return tmp_path


TINY = NamedDataset(name="tiny-imagenet", validation_fraction=0.25)


def test_tiny_imagenet_as_published(tiny_imagenet: Path) -> None:
    data = load_data(TINY, tiny_imagenet, CPU)
    assert sizes(data) == (9, 3, 5)
    assert (data.classes, data.channels, data.image_size) == (3, 3, 64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in STATISTICS["tiny-imagenet"])

    def seen(split: Split) -> list[tuple[list[float], int]]:
        images, labels = whole(split)
        pixels = ((images * std + mean) * 255).mean(dim=(2, 3)).tolist()
        return list(zip(pixels, labels.tolist(), strict=True))

    expected = [([60.0 * c, 200, 99], c) for c in (1, 0, 2, 2, 1)]  # in the order of val_annotations.txt
    for (pixel, label), (colour, its_label) in zip(seen(data.test), expected, strict=True):
        assert (pixel, label) == (pytest.approx(colour, abs=3), its_label)  # JPEG
    colours = {c: [[20.0 * c] * 3, *([60.0 * c, 10.0 * i, 99.0] for i in (1, 2, 3))] for c in range(3)}
    for pixel, label in seen(data.train) + seen(data.validation):
        found = [colour for colour in colours[label] if pixel == pytest.approx(colour, abs=4)]
        assert len(found) == 1, (pixel, label)
        colours[label].remove(found[0])
    assert colours == {0: [], 1: [], 2: []}


def break_wnids(root: Path) -> None:
    (root / "wnids.txt").write_text("n02124075\nn01443537\n")


def break_annotations(root: Path) -> None:
    with (root / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_5.JPEG\tn00000000\t0\t0\t1\t1\n")


def block_wnids(root: Path) -> None:
    (root / "wnids.txt").unlink()
    os.mkfifo(root / "wnids.txt")


def inflate_wnids(root: Path) -> None:
    os.truncate(root / "wnids.txt", 10**12)  # it takes no disk


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (block_wnids, "wnids.txt is no regular file"),
        (inflate_wnids, "wnids.txt has more than 16777216 bytes"),
        (break_wnids, r"wnids.txt names 2 classes, not 3"),
        (break_annotations, r"gives val_5.JPEG the class n00000000, which is not in wnids.txt"),
        (lambda root: (root / "val" / "val_annotations.txt").unlink(), "No such file or directory"),
        (lambda root: (root / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_2.JPEG").unlink(), "11 training and 5 test"),
    ],
)
def test_a_damaged_tiny_imagenet_is_named_with_the_remedy(tiny_imagenet: Path, damage: Any, message: str) -> None:
    damage(tiny_imagenet / "tiny-imagenet-200")
    with pytest.raises(DatasetMissing) as caught:
        load_data(TINY, tiny_imagenet, CPU)
    assert message in caught.value.detail
    assert f"dataset tiny-imagenet in {tiny_imagenet / 'tiny-imagenet-200'} is incomplete" in caught.value.detail
    assert "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip in the data folder" in caught.value.detail


def test_a_label_file_that_names_files_elsewhere_leads_nowhere(tiny_imagenet: Path) -> None:
    (tiny_imagenet.parent / "outside.JPEG").write_bytes(b"secret")
    labels = tiny_imagenet / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    labels.write_text(labels.read_text().replace("val_0.JPEG", "../../../../outside.JPEG"))
    with pytest.raises(
        TrainingFailed, match=r"outside.JPEG cannot be read as an image \(.* leads out of the data folder"
    ):
        load_data(TINY, tiny_imagenet, CPU)


# --- a tree of image files -------------------------------------------------------------------------


def write_images(folder: Path, per_class: dict[str, int]) -> None:
    """Images of 24x16 pixels, each of its own colour, which is (10 * number of the class, number of the image, 77)."""
    for number, (name, images) in enumerate(per_class.items()):
        (folder / name).mkdir(parents=True)
        for image in range(images):
            Image.new("RGB", (24, 16), (10 * number, image, 77)).save(folder / name / f"{image:02}.png")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A data folder with flowers/{train,test}: 8 + 4 training and 2 + 1 test images of daisies and roses."""
    write_images(tmp_path / "flowers" / "train", {"daisy": 8, "rose": 4})
    write_images(tmp_path / "flowers" / "test", {"daisy": 2, "rose": 1})
    return tmp_path


def colours(images: torch.Tensor) -> list[tuple[int, ...]]:
    """The one colour of each image [k, 3, H, W], normalisation undone."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in STATISTICS["image-folder"])
    pixels = ((images * std + mean) * 255).round().to(torch.int64)
    assert (pixels == pixels[:, :, :1, :1]).all()
    return [tuple(pixel) for pixel in pixels[:, :, 0, 0].tolist()]


def test_image_folder(tree: Path) -> None:
    data = load_data(TREE, tree, CPU)
    assert sizes(data) == (9, 3, 3)  # a quarter of 12 held out
    assert (data.classes, data.channels, data.image_size) == (2, 3, 8)
    assert count_train_samples(TREE, tree) == 9
    images, labels = whole(data.test)
    assert images.shape == (3, 3, 8, 8)
    assert labels.tolist() == [0, 0, 1]
    assert colours(images) == [(0, 0, 77), (0, 1, 77), (10, 0, 77)]
    splits = [whole(split) for split in (data.train, data.validation)]
    pairs = [(c, y) for images, labels in splits for c, y in zip(colours(images), labels.tolist(), strict=True)]
    assert sorted(pairs) == [((0, i, 77), 0) for i in range(8)] + [((10, i, 77), 1) for i in range(4)]


@given(st.lists(st.integers(0, 8), max_size=40))
@settings(max_examples=20, deadline=None)
def test_a_batch_of_files_is_in_the_order_asked_for(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    root = tmp_path_factory.getbasetemp() / "ordered"
    if not root.exists():
        write_images(root / "flowers" / "train", {"daisy": 8, "rose": 4})
        write_images(root / "flowers" / "test", {"daisy": 1, "rose": 1})
    train = load_data(TREE, root, CPU).train
    every, labels = whole(train)
    images, their_labels = train.batch(torch.tensor(order, dtype=torch.int64), CPU)
    assert torch.equal(images, every[order])
    assert torch.equal(their_labels, labels[order])


def test_val_stands_in_for_test(tree: Path) -> None:
    (tree / "flowers" / "test").rename(tree / "flowers" / "val")
    assert sizes(load_data(TREE, tree, CPU)) == (9, 3, 3)


def test_shorter_side_is_resized_and_the_centre_cropped(tree: Path) -> None:
    """Against torchvision's resize and crop, on a picture with structure everywhere."""
    wide = Image.effect_mandelbrot((48, 32), (-2, -1.2, 1, 1.2), 100).convert("RGB")
    wide.save(tree / "flowers" / "test" / "rose" / "00.png")
    for size in (8, 16, 32, 64):
        data = load_data(TREE.model_copy(update={"image_size": size}), tree, CPU)
        assert isinstance(data.test.images, datasets.ImageFiles)
        ours = data.test.images[torch.tensor([2])][0]
        functional = torchvision.transforms.functional
        reference = functional.pil_to_tensor(functional.center_crop(functional.resize(wide, size), size))
        assert ours.shape == (3, size, size)
        assert torch.equal(ours, reference)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
def test_images_of_every_mode_become_rgb(mode: str, tree: Path) -> None:
    rose = tree / "flowers" / "test" / "rose"
    (rose / "00.png").unlink()
    Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode).save(rose / "00.tiff")
    assert colours(load_data(TREE, tree, CPU).test.batch(torch.tensor([2]), CPU)[0]) == [(255, 255, 255)]


def test_files_are_decoded_when_a_batch_asks_and_a_broken_one_is_named(tree: Path) -> None:
    broken = tree / "flowers" / "test" / "rose" / "00.png"
    broken.write_bytes(broken.read_bytes()[:40])
    data = load_data(TREE, tree, CPU)
    assert data.test.batch(torch.tensor([0, 1]), CPU)[0].shape == (2, 3, 8, 8)
    with pytest.raises(TrainingFailed) as caught:
        whole(data.test)
    assert caught.value.detail.startswith(f"{broken} cannot be read as an image (")
    assert caught.value.detail.endswith("; replace or remove it")


def bomb(width: int, height: int, rows: int) -> bytes:
    """A PNG of black pixels, one bit each, of which it has so many rows: 21 kB for 13,000 x 13,000."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    pixels = zlib.compress(bytes((width // 8 + 1) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height", "rows"),
    [(13_000, 13_000, 13_000), (2**16, 2**10 + 1, 2**10), (2**30, 2**30, 0), (9000, 9000, 0)],
)
def test_an_image_that_is_too_large_is_refused_by_its_header(width: int, height: int, rows: int, tree: Path) -> None:
    """It took 0.8 to 1.4 GB."""
    rose = tree / "flowers" / "test" / "rose" / "00.png"
    rose.write_bytes(bomb(width, height, rows))
    assert rose.stat().st_size < 22_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TrainingFailed, match=rf"{rose} cannot be read as an image \(.*pixels.*\); replace"):
        whole(load_data(TREE, tree, CPU).test)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB


def test_a_large_photograph_is_decoded(tree: Path) -> None:
    Image.new("RGB", (4000, 2000), (5, 6, 7)).save(tree / "flowers" / "test" / "rose" / "00.png")
    assert colours(whole(load_data(TREE, tree, CPU).test)[0])[2] == (5, 6, 7)


def test_what_only_is_called_an_image_is_not_opened_by_other_readers(tree: Path) -> None:
    """Pillow would give PostScript to Ghostscript."""
    rose = tree / "flowers" / "test" / "rose" / "00.png"
    rose.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(TrainingFailed, match="cannot identify image file"):
        whole(load_data(TREE, tree, CPU).test)


def test_a_fifo_in_place_of_an_image_holds_up_nobody(tree: Path) -> None:
    """A thread waited for ever for somebody to write to it."""
    data = load_data(TREE, tree, CPU)
    rose = tree / "flowers" / "test" / "rose" / "00.png"
    rose.unlink()
    os.mkfifo(rose)
    with pytest.raises(TrainingFailed, match=rf"\({rose} is no regular file\); replace or remove it"):
        whole(data.test)
    with pytest.raises(DatasetMissing, match="is no regular file"):
        load_data(TREE, tree, CPU)


def test_a_link_that_leads_out_is_not_followed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = load_data(TREE, tree, CPU)
    rose = tree / "flowers" / "test" / "rose" / "00.png"
    rose.symlink_to(rose.rename(tmp_path_factory.mktemp("outside") / "rose.png"))
    with pytest.raises(TrainingFailed, match="leads out of the data folder"):
        whole(data.test)
    with pytest.raises(DatasetMissing, match="leads out of the data folder"):
        load_data(TREE, tree, CPU)


def test_a_subset_of_files_decodes_no_others(tree: Path) -> None:
    some = TREE.model_copy(update={"train_samples": 4})
    data = load_data(some, tree, CPU)
    assert sizes(data) == (4, 3, 3)
    assert isinstance(data.train.images, datasets.ImageFiles)
    assert count_train_samples(some, tree) == 4
    with pytest.raises(InvalidInput) as caught:
        count_train_samples(TREE.model_copy(update={"train_samples": 10}), tree)
    assert caught.value.errors[0].field == "dataset.train_samples"


def test_a_subset_of_a_named_dataset_decodes_no_others(tiny_imagenet: Path) -> None:
    first = load_data(TINY.model_copy(update={"train_samples": 2}), tiny_imagenet, CPU)
    assert sizes(first) == (2, 3, 5)
    assert len(first.train.images) == 5  # the validation split lies beside


def test_counting_decodes_nothing(tree: Path) -> None:
    for file in (tree / "flowers").rglob("*.png"):
        file.write_bytes(b"not an image")
    assert count_train_samples(TREE, tree) == 9


def test_classes_that_differ_are_named(tree: Path) -> None:
    (tree / "flowers" / "test" / "rose").rename(tree / "flowers" / "test" / "tulip")
    with pytest.raises(DatasetMissing) as caught:
        load_data(TREE, tree, CPU)
    assert "only one of them has rose, tulip; add the missing folders, or remove these" in caught.value.detail
    assert str(tree / "flowers" / "test") in caught.value.detail


def test_a_class_without_images_is_named(tree: Path) -> None:
    (tree / "flowers" / "train" / "lily").mkdir()
    with pytest.raises(DatasetMissing, match=r"flowers/train must hold a folder of images for each class: .*lily"):
        load_data(TREE, tree, CPU)


def test_an_absent_tree_is_named_with_the_remedy(tmp_path: Path) -> None:
    for use in (lambda: load_data(TREE, tmp_path, CPU), lambda: count_train_samples(TREE, tmp_path)):
        with pytest.raises(DatasetMissing) as caught:
            use()
        assert f"{tmp_path}/flowers/train/CLASS/IMAGE" in caught.value.detail
        assert "put the tree there, or point FORERUN_DATA_DIR at the folder" in caught.value.detail
