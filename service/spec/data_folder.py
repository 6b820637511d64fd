"""The folder of datasets: what lies there may be read; what lies elsewhere, or is no regular file, may not.

Links inside the folder may lead to what lies inside, too. The folder itself may be a link.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from service.errors import DatasetMissing

TEST_FOLDERS = ("test", "val")  # of an image-folder tree, the first that exists
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's


def open_file(path: str | Path, data_dir: Path) -> BinaryIO:
    """Open a file of the data folder, to read its bytes. Raises ValueError where it lies outside of the folder or is no
    regular file, and OSError where it cannot be opened."""
    if not _is_inside(path, data_dir):
        raise ValueError(f"{path} leads out of the data folder {data_dir}")
    # without O_NONBLOCK a FIFO would be waited for until somebody writes to it
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def require_image_folder(path: str, data_dir: Path) -> Path:
    """The root of the image tree at `path`, relative to the data folder. Raises DatasetMissing unless it has train/,
    and test/ or val/, all of them inside the data folder."""
    root = data_dir / path
    for folder in (root, root / "train", *(root / name for name in TEST_FOLDERS)):
        _require_inside(folder, data_dir)
    # os.path.isdir: False, not an OSError, for a name too long for the file system
    if os.path.isdir(root / "train") and any(os.path.isdir(root / name) for name in TEST_FOLDERS):
        return root
    raise DatasetMissing(
        f"dataset image-folder needs {root}/train/CLASS/IMAGE and {root}/test/CLASS/IMAGE (or val/ for test/); "
        f"put the tree there, or point FORERUN_DATA_DIR at the folder that has {path}"
    )


def images_by_class(folder: Path, data_dir: Path) -> dict[str, list[str]]:
    """The paths of the images below each class's folder FOLDER/CLASS, by class, both sorted; an image is known by its
    name's ending. Raises DatasetMissing where one is no file, or something leads out of the data folder."""
    if not os.path.isdir(folder):
        return {}
    with os.scandir(folder) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir())
    return {name: _images_below(os.path.join(folder, name), data_dir) for name in classes}


def count_images(folder: Path, data_dir: Path) -> int:
    """The number of images in a class-per-folder tree, counted by their names. Raises what `images_by_class` does."""
    return sum(map(len, images_by_class(folder, data_dir).values()))


def _images_below(folder: str, data_dir: Path) -> list[str]:
    found: list[tuple[str, str]] = []  # (folder, name), for a folder's images stand before those of the folders in it
    _require_inside(folder, data_dir)
    left: list[tuple[str, str, frozenset[str]]] = [(folder, os.path.realpath(folder), frozenset())]
    while left:
        folder, real, above = left.pop()  # above: the folders that it lies in
        if real in above:
            raise DatasetMissing(f"{folder} leads back to a folder that it lies in; remove the link")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    _require_inside(entry.path, data_dir)
                if entry.is_dir():
                    its = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                    left.append((entry.path, its, above | {real}))
                elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                    if not entry.is_file():
                        raise DatasetMissing(f"{entry.path} is no regular file; replace or remove it")
                    found.append((folder, entry.name))
    return [os.path.join(*one) for one in sorted(found)]


def _require_inside(path: str | Path, data_dir: Path) -> None:
    if not _is_inside(path, data_dir):
        raise DatasetMissing(
            f"{path} leads out of the data folder {data_dir}, by a link; put the files there themselves, mount their "
            "folder there, or point FORERUN_DATA_DIR at the folder that has them"
        )


def _is_inside(path: str | Path, data_dir: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(data_dir))
