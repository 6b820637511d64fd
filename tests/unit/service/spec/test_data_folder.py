"""What lies in the data folder is found; what leads out of it, blocks or goes round is refused."""

import os
import re
import socket
from pathlib import Path

import pytest

from service.errors import DatasetMissing
from service.spec.data_folder import count_images, images_by_class, open_file, require_image_folder


@pytest.mark.parametrize("test", ["test", "val"])
def test_an_image_folder_has_train_and_test(test, tmp_path):
    for part in ("train", test):
        with pytest.raises(DatasetMissing, match=f"needs {tmp_path}/birds/train/CLASS/IMAGE and .* or point FORERUN"):
            require_image_folder("birds", tmp_path)
        (tmp_path / "birds" / part).mkdir(parents=True)
    assert require_image_folder("birds", tmp_path) == tmp_path / "birds"


def test_a_name_too_long_for_the_file_system_is_a_missing_dataset(tmp_path):
    with pytest.raises(DatasetMissing):
        require_image_folder("x" * 1024, tmp_path)


def test_images_are_counted_by_name(tmp_path):
    for name in ("a/1.png", "a/2.JPG", "a/deep/3.webp", "b/4.jpeg", "a/notes.txt", "a/png", "b/.png.swp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert count_images(tmp_path, tmp_path) == 4
    assert count_images(tmp_path / "absent", tmp_path) == 0


# --- links, and what is no file ------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with birds/{train,test}/{owl,tit}/1.png, and the same beside it, in outside/."""
    for root in ("data/birds", "outside/birds"):
        for part in ("train", "test"):
            for name in ("owl", "tit"):
                folder = tmp_path / root / part / name
                folder.mkdir(parents=True)
                (folder / "1.png").write_bytes(b"an image")
    return tmp_path / "data"


LEADS_OUT = r"leads out of the data folder .*, by a link; put the files there themselves, mount their folder there, or"


@pytest.mark.parametrize("where", ["more", "birds/train", "birds/test", "birds/val"])
def test_a_folder_that_is_a_link_out_is_refused(where, data):
    link = data / where
    if link.is_dir():
        link.rename(data / "elsewhere")
    link.symlink_to(data.parent / "outside" / "birds" / ("" if where == "more" else "train"))
    with pytest.raises(DatasetMissing, match=LEADS_OUT):
        require_image_folder("more" if where == "more" else "birds", data)


@pytest.mark.parametrize(
    "where", ["birds/train/kite", "birds/train/owl/deep", "birds/train/owl/2.png", "birds/train/owl/x"]
)
@pytest.mark.parametrize("target", ["../outside/birds/train/owl/1.png", "../outside/birds/train", "/", "/etc/passwd"])
def test_a_link_out_below_a_tree_is_refused(where, target, data):
    (data / where).symlink_to(data / target)
    if where == "birds/train/kite" and (data / target).is_file():
        assert count_images(data / "birds" / "train", data) == 2  # it is no class
        return
    with pytest.raises(DatasetMissing, match=re.escape(str(data / where)) + f" {LEADS_OUT}"):
        count_images(data / "birds" / "train", data)


def test_links_inside_the_folder_are_followed(data):
    (data / "birds" / "train" / "kite").symlink_to(data / "birds" / "test" / "owl")
    (data / "birds" / "train" / "owl" / "2.png").symlink_to(data / "birds" / "test" / "owl" / "1.png")
    (data / "same").symlink_to("birds")
    other_way = data.parent / "link-to-data"
    other_way.symlink_to(data)  # the folder itself may be one
    for folder in (data, other_way):
        root = require_image_folder("same", folder)
        assert images_by_class(root / "train", folder) == {
            "kite": [f"{root}/train/kite/1.png"],
            "owl": [f"{root}/train/owl/1.png", f"{root}/train/owl/2.png"],
            "tit": [f"{root}/train/tit/1.png"],
        }
        with open_file(root / "train" / "owl" / "2.png", folder) as file:
            assert file.read() == b"an image"


def test_a_link_that_goes_round_is_refused(data):
    (data / "birds" / "train" / "owl" / "round").symlink_to(data / "birds" / "train" / "owl")
    with pytest.raises(DatasetMissing, match="owl/round leads back to a folder that it lies in; remove the link"):
        count_images(data / "birds" / "train", data)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(path.parent)  # the names of sockets are short
        one.bind(path.name)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("absent"))


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_dangling_link])
def test_what_is_no_file_is_refused(make, data, monkeypatch):
    monkeypatch.chdir(data)
    path = data / "birds" / "train" / "owl" / "2.png"
    make(path)
    with pytest.raises(DatasetMissing, match=r"owl/2.png is no regular file; replace or remove it"):
        count_images(data / "birds" / "train", data)
    with pytest.raises((ValueError, OSError)):
        open_file(path, data)


@pytest.mark.parametrize("path", ["/dev/zero", "/etc/passwd", "birds", "birds/../../outside/birds/train/owl/1.png"])
def test_only_files_of_the_folder_are_opened(path, data):
    with pytest.raises(ValueError, match=r"leads out of the data folder|is no regular file"):
        open_file(data / path, data)
