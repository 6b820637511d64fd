"""Loads datasets by name: decoded images in memory, or files that are decoded when a batch asks for them.

The named datasets lie in memory (on the GPU, where there is one) as one uint8 tensor; a tree of image files is decoded
batch by batch, so that ImageNet fits. A batch is a pure function of its indices: nothing is augmented, and the same
indices give the same bits whatever was asked before.

The validation split is held out of the training split by a permutation with a constant seed, SPLIT_SEED, never the
job's: jobs with different seeds are judged on the same samples, and the training split is the same for every worker.
"""

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from service.algorithms.epoch_plan import split_sizes
from service.errors import DatasetMissing, TrainingFailed
from service.spec.catalog import DATASETS, how_to_fetch, require_files
from service.spec.data import FolderDataset, NamedDataset
from service.spec.data_folder import TEST_FOLDERS, images_by_class, open_file, require_image_folder
from workers.engine import progress

SPLIT_SEED = 20_231  # any constant: it decides which samples are held out, for every job and version
MAX_DECODERS = 8  # threads of one process; workers share the machine
IMAGES_A_TASK = 16  # for one thread: one image each costs 32x32 images a third of the speed
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # Pillow's others are none of a photograph
MAX_PIXELS = 2**26  # of an image: 67 million, as cameras have at most; it takes 0.5 GB to decode
LARGE_PIXELS = 2**22  # an image with more is decoded alone
MAX_TEXT_BYTES = 2**24  # of a list of names or labels

# Mean and standard deviation per channel of the training images in [0, 1]; tests recompute all but ImageNet's
# and Tiny ImageNet's.
STATISTICS = {
    "digits": ((0.3045,), (0.3243,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "tiny-imagenet": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),  # as others have published them
    "image-folder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's
}


@dataclass(frozen=True)
class ImageFiles:
    """Image files that read like a uint8 tensor [n, 3, image_size, image_size], but are decoded when indexed."""

    paths: tuple[str, ...]
    image_size: int
    data_dir: Path  # they lie in

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The images in these rows, int64 [k], decoded: uint8 [k, 3, image_size, image_size], on the CPU."""
        paths = [self.paths[row] for row in rows.tolist()]
        images = np.empty((len(paths), self.image_size, self.image_size, 3), np.uint8)

        def decode(places: range) -> None:
            for place in places:
                images[place] = _decode(paths[place], self.image_size, self.data_dir)
                progress.advance()

        parts = [range(len(paths))[start : start + IMAGES_A_TASK] for start in range(0, len(paths), IMAGES_A_TASK)]
        list(_decoders().map(decode, parts))  # list: raises what a decoder raised
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Split:
    """One split of a dataset: n samples among the N images of a training or test folder."""

    images: Tensor | ImageFiles  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]
    rows: Tensor  # int64 [n]: which of them
    mean: Tensor  # float32 [C, 1, 1], of pixels in [0, 1]
    std: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def in_memory(self) -> bool:
        """Whether the images lie decoded in memory, so that `read` has nothing to decode."""
        return isinstance(self.images, Tensor)

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The samples of these indices, int64 [k], each below len(self): images uint8 [k, C, H, W] and labels int64
        [k], on the device where the split lies."""
        rows = self.rows[indices.to(self.rows.device)]
        return self.images[rows], self.labels[rows]

    def normalised(self, images: Tensor, device: torch.device) -> Tensor:
        """Images uint8 [k, C, H, W] as a model takes them: float32 [k, C, H, W] on `device`, less the dataset's mean
        and divided by its standard deviation, both of pixels in [0, 1]."""
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        pixels = images.to(device).to(torch.float32, memory_format=layout).div_(255)
        return pixels.sub_(self.mean.to(device)).div_(self.std.to(device))

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """The samples of these indices, int64 [k], as a model takes them: images as `normalised` returns them, labels
        int64 [k], both on `device`."""
        images, labels = self.read(indices)
        return self.normalised(images, device), labels.to(device)


@dataclass(frozen=True)
class Data:
    """A dataset as a training sees it: three splits, and the shape of an image. The test split is evaluated and
    reported, never chosen by."""

    train: Split
    validation: Split
    test: Split
    classes: int
    channels: int
    image_size: int  # pixels, square


class Labelled(NamedTuple):
    """Every image of a training or test folder, with the number of its class."""

    images: Tensor | ImageFiles  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]


def load_data(spec: NamedDataset | FolderDataset, data_dir: Path, device: torch.device) -> Data:
    """The dataset of `spec`, whose files lie under `data_dir`; images that are kept in memory lie on `device`.

    Raises DatasetMissing where files are absent, TrainingFailed where an image cannot be read.
    """
    if isinstance(spec, FolderDataset):
        channels, image_size = 3, spec.image_size
        train, test, classes = _read_image_tree(require_image_folder(spec.path, data_dir), image_size, data_dir)
    else:
        facts = DATASETS[spec.name]
        channels, image_size, classes = facts.channels, facts.image_size, facts.classes
        train, test = _read_named(spec, data_dir)
    kept, held_out = _split_rows(len(train.labels), spec)
    if isinstance(spec, NamedDataset):
        if spec.train_samples is not None:  # nobody asks for the others: they need not be decoded
            wanted = torch.cat([kept, held_out]).sort().values
            train = Labelled(train.images[wanted], train.labels[wanted])
            kept, held_out = torch.searchsorted(wanted, kept), torch.searchsorted(wanted, held_out)
        train, test = _in_memory(train, device), _in_memory(test, device)
    home = train.labels.device
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in STATISTICS[spec.name])
    return Data(
        train=Split(*train, kept.to(home), mean, std),
        validation=Split(*train, held_out.to(home), mean, std),
        test=Split(*test, torch.arange(len(test.labels), device=home), mean, std),
        classes=classes,
        channels=channels,
        image_size=image_size,
    )


def _split_rows(samples: int, spec: NamedDataset | FolderDataset) -> tuple[Tensor, Tensor]:
    """(training, validation) rows of a training folder of so many images, int64, ascending."""
    _, held_out = split_sizes(samples, spec.validation_fraction)
    order = _fixed_permutation(samples)
    return order[held_out:][: spec.train_samples].sort().values, order[:held_out].sort().values


def _fixed_permutation(samples: int) -> Tensor:
    return torch.randperm(samples, generator=torch.Generator().manual_seed(SPLIT_SEED))


# --- named datasets ------------------------------------------------------------------------------


def _read_named(spec: NamedDataset, data_dir: Path) -> tuple[Labelled, Labelled]:
    """The training and test images of a dataset of known size. Raises an error unless each has as many as it should."""
    if spec.download:
        _download(spec.name, data_dir)
    require_files(spec.name, data_dir)
    facts = DATASETS[spec.name]
    try:
        train, test = READERS[spec.name](data_dir)
        found = len(train.labels), len(test.labels)
        if found != (facts.train_samples, facts.test_samples):
            expected = f"{facts.train_samples} and {facts.test_samples}"
            raise ValueError(f"{found[0]} training and {found[1]} test images, not {expected}")
    except (AssertionError, OSError, RuntimeError, ValueError) as error:  # what torchvision raises for broken files
        folder = _layout_there(spec.name, data_dir)
        raise DatasetMissing(
            f"dataset {spec.name} in {folder} is incomplete or broken: {type(error).__name__}: {error}; remove that "
            f"folder and put the files there again, or {how_to_fetch(spec.name)}"
        ) from error
    return train, test


def _in_memory(part: Labelled, device: torch.device) -> Labelled:
    images = part.images
    if isinstance(images, ImageFiles):
        images = images[torch.arange(len(images.paths))]
    return Labelled(images.to(device), part.labels.to(device))


def _layout_there(name: str, data_dir: Path) -> Path | None:
    """The first folder among the dataset's layouts that exists. None where there is none."""
    return next((data_dir / layout for layout in DATASETS[name].layouts if (data_dir / layout).is_dir()), None)


def _download(name: str, data_dir: Path) -> None:
    """Fetch a dataset unless it is there. One worker of a machine does so, and the others wait for it.

    The files arrive in a fresh folder that is then renamed, so that a folder that is there was fetched to its end.
    """
    if _layout_there(name, data_dir):
        return
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f".{name}.lock"):
            if _layout_there(name, data_dir):
                return
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=data_dir) as fresh:
                PUBLISHED[name](fresh, download=True)
                target = data_dir / DATASETS[name].layouts[0]
                target.parent.mkdir(exist_ok=True)
                (Path(fresh) / DATASETS[name].layouts[0]).rename(target)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torchvision's fill several lines
        raise DatasetMissing(
            f"dataset {name} could not be downloaded into {data_dir}: {reason}; put its files there, or point "
            f"FORERUN_DATA_DIR at the folder that has them"
        ) from error


def _read_digits(_: Path) -> tuple[Labelled, Labelled]:
    """scikit-learn's 1797 digits of 8x8 pixels, each 0 to 16, enlarged; split by a fixed permutation."""
    facts = DATASETS["digits"]
    # the file that sklearn.datasets.load_digits reads: to import sklearn takes seconds in every worker
    [package] = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]
    table = np.loadtxt(Path(package, "datasets", "data", "digits.csv.gz"), delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1]
    small = torch.from_numpy(pixels).reshape(-1, 1, 8, 8) / 16  # float64
    size = (facts.image_size, facts.image_size)
    # 8 / 16 of 255 lies halfway between two bytes: up by the 1e-6, not as this CPU's last bit would have it
    images = (functional.interpolate(small, size, mode="bilinear") * 255 + 1e-6).round().to(torch.uint8)
    train, test = _fixed_permutation(len(labels)).split([facts.train_samples, facts.test_samples])
    classes = torch.from_numpy(labels).to(torch.int64)
    return Labelled(images[train], classes[train]), Labelled(images[test], classes[test])


def _read_mnist(name: str, data_dir: Path) -> tuple[Labelled, Labelled]:
    """The images of MNIST or Fashion-MNIST, from the published files, unpacked."""
    facts = DATASETS[name]
    side = facts.image_size

    def labelled(prefix: str, samples: int) -> Labelled:
        raw = data_dir / facts.layouts[0]
        images = _read_idx(raw / f"{prefix}-images-idx3-ubyte", (samples, side, side), data_dir)
        labels = _read_idx(raw / f"{prefix}-labels-idx1-ubyte", (samples,), data_dir)
        return Labelled(images.unsqueeze(1), labels.to(torch.int64))

    return labelled("train", facts.train_samples), labelled("t10k", facts.test_samples)


def _read_idx(path: Path, shape: tuple[int, ...], data_dir: Path) -> Tensor:
    """The unsigned bytes of this shape in a file of MNIST's format: a number of that type, the number of dimensions,
    each dimension as a big-endian 32-bit integer, then the bytes."""
    header = b"\x00\x00\x08" + bytes([len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    with open_file(path, data_dir) as file:
        size, expected = os.fstat(file.fileno()).st_size, len(header) + math.prod(shape)
        if size != expected or file.read(len(header)) != header:
            raise ValueError(f"{path} has {size} bytes, and not the {expected} of {' x '.join(map(str, shape))} bytes")
        return torch.from_numpy(np.fromfile(file, np.uint8)).view(shape)


def _read_cifar10(data_dir: Path) -> tuple[Labelled, Labelled]:
    """The images of CIFAR-10, from the published pickles or from cifar10/{train,test}/CLASS/*.png."""
    if not (data_dir / "cifar-10-batches-py").is_dir():
        root = require_image_folder("cifar10", data_dir)
        train, test, _ = _read_image_tree(root, DATASETS["cifar10"].image_size, data_dir)
        return train, test

    def labelled(published: Any) -> Labelled:
        images = torch.from_numpy(published.data).permute(0, 3, 1, 2).contiguous()
        return Labelled(images, torch.tensor(published.targets))

    return labelled(PUBLISHED["cifar10"](data_dir, train=True)), labelled(PUBLISHED["cifar10"](data_dir, train=False))


def _read_tiny_imagenet(data_dir: Path) -> tuple[Labelled, Labelled]:
    """The images of Tiny ImageNet, from train/WNID/images/*.JPEG and val/images/*.JPEG, whose classes stand in
    val/val_annotations.txt.

    A class is the place of its WordNet id in their sorted list, as in a tree of folders.
    """
    facts = DATASETS["tiny-imagenet"]
    root = data_dir / facts.layouts[0]
    wnids = sorted(_read_text(root / "wnids.txt", data_dir).split())
    if len(wnids) != facts.classes:
        raise ValueError(f"wnids.txt names {len(wnids)} classes, not {facts.classes}")
    number = {wnid: place for place, wnid in enumerate(wnids)}
    train = [(path, wnid) for wnid in wnids for path in sorted((root / "train" / wnid / "images").glob("*.JPEG"))]
    val = []
    for line in _read_text(root / "val" / "val_annotations.txt", data_dir).splitlines():
        name, wnid, *_ = line.split("\t")  # and a bounding box
        if wnid not in number:
            raise ValueError(f"val_annotations.txt gives {name} the class {wnid}, which is not in wnids.txt")
        val.append((root / "val" / "images" / name, wnid))

    def labelled(samples: Sequence[tuple[Path, str]]) -> Labelled:
        images = ImageFiles(tuple(str(path) for path, _ in samples), facts.image_size, data_dir)
        return Labelled(images, torch.tensor([number[wnid] for _, wnid in samples]))

    return labelled(train), labelled(val)


def _read_text(path: Path, data_dir: Path) -> str:
    with open_file(path, data_dir) as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"{path} has more than {MAX_TEXT_BYTES} bytes")
    return content.decode()


def _published(name: str, *arguments: Any, **options: Any) -> Any:
    """An instance of the class `name` of torchvision.datasets, made with these arguments."""
    import torchvision  # type: ignore[import-untyped]  # two seconds, which a worker with digits need not spend

    return getattr(torchvision.datasets, name)(*arguments, **options)


PUBLISHED: dict[str, Callable[..., Any]] = {
    "mnist": partial(_published, "MNIST"),
    "fashion-mnist": partial(_published, "FashionMNIST"),
    "cifar10": partial(_published, "CIFAR10"),
}
READERS: dict[str, Callable[[Path], tuple[Labelled, Labelled]]] = {
    "digits": _read_digits,
    "mnist": partial(_read_mnist, "mnist"),
    "fashion-mnist": partial(_read_mnist, "fashion-mnist"),
    "cifar10": _read_cifar10,
    "tiny-imagenet": _read_tiny_imagenet,
}


# --- trees of image files ------------------------------------------------------------------------


def _read_image_tree(root: Path, image_size: int, data_dir: Path) -> tuple[Labelled, Labelled, int]:
    """The training images, the test images and the number of classes of a tree ROOT/train/CLASS/IMAGE with
    ROOT/test/CLASS/IMAGE, or val/. They are sorted, so that an index means the same file everywhere."""
    test_folder = next(root / name for name in TEST_FOLDERS if (root / name).is_dir())
    train, test = _scan(root / "train", data_dir), _scan(test_folder, data_dir)
    if list(train) != list(test):
        only = sorted(set(train) ^ set(test))
        raise DatasetMissing(
            f"{root / 'train'} and {test_folder} must have the same class folders, but only one of them has "
            f"{', '.join(only)}; add the missing folders, or remove these"
        )

    def labelled(tree: dict[str, list[str]]) -> Labelled:
        paths = [path for images in tree.values() for path in images]
        labels = [number for number, images in enumerate(tree.values()) for _ in images]
        return Labelled(ImageFiles(tuple(paths), image_size, data_dir), torch.tensor(labels))

    return labelled(train), labelled(test), len(train)


def _scan(folder: Path, data_dir: Path) -> dict[str, list[str]]:
    """The paths of the images of each class in FOLDER/CLASS/IMAGE. Raises DatasetMissing where a class has none."""
    found = images_by_class(folder, data_dir)
    empty = [name for name, images in found.items() if not images]
    if empty or not found:
        which = f"there is none in {', '.join(empty)}" if empty else "it holds no folder"
        raise DatasetMissing(f"{folder} must hold a folder of images for each class: {which}; add them")
    return found


@cache
def _decoders() -> ThreadPoolExecutor:
    """The threads that decode images, one pool for the process. Pillow releases the GIL while it decodes and
    resizes."""
    return ThreadPoolExecutor(min(MAX_DECODERS, os.cpu_count() or 1), thread_name_prefix="decode")


def _decode(path: str, image_size: int, data_dir: Path) -> npt.NDArray[np.uint8]:
    """The image in a file as RGB [image_size, image_size, 3]: its shorter side resized to `image_size` pixels and the
    centre cropped, in one step. How large it is stands in its first bytes: one that is too large is not decoded."""
    try:
        with open_file(path, data_dir) as file, Image.open(file, formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            with _ALONE if pixels > LARGE_PIXELS else nullcontext():
                rgb = image.convert("RGB")
                return np.asarray(ImageOps.fit(rgb, (image_size, image_size), Image.Resampling.BILINEAR))
    except Exception as error:  # of any type: a broken file makes Pillow's decoders raise what they like
        raise TrainingFailed(f"{path} cannot be read as an image ({error}); replace or remove it") from error


_ALONE = Lock()
