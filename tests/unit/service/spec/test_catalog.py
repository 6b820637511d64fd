import pytest

from service.errors import DatasetMissing
from service.spec.catalog import DATASETS, MODELS, count_images, require_files, require_image_folder


def test_datasets_are_as_published():
    facts = {n: (d.train_samples, d.test_samples, d.classes, d.channels, d.image_size) for n, d in DATASETS.items()}
    assert facts == {
        "digits": (1437, 360, 10, 1, 28),
        "mnist": (60_000, 10_000, 10, 1, 28),
        "fashion-mnist": (60_000, 10_000, 10, 1, 28),
        "cifar10": (50_000, 10_000, 10, 3, 32),
        "tiny-imagenet": (100_000, 10_000, 200, 3, 64),
    }
    assert {name for name, facts in DATASETS.items() if facts.can_download} == {"mnist", "fashion-mnist", "cifar10"}


def test_the_papers_models_are_there_and_no_name_stands_twice():
    assert {"lenet5", "resnet50", "resnet18-cifar", "resnet34-cifar"} <= set(MODELS)  # the three papers'
    assert len(set(MODELS)) == len(MODELS)


def test_digits_need_no_files(tmp_path):
    require_files("digits", tmp_path / "absent")


DOWNLOAD = "set dataset.download to true"


@pytest.mark.parametrize(
    ("name", "folder", "remedy"),
    [
        ("mnist", "MNIST/raw", DOWNLOAD),
        ("fashion-mnist", "FashionMNIST/raw", DOWNLOAD),
        ("cifar10", "cifar-10-batches-py", DOWNLOAD),
        ("cifar10", "cifar10", DOWNLOAD),
        ("tiny-imagenet", "tiny-imagenet-200", "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip in the data"),
    ],
)
def test_files_are_looked_for_in_the_data_folder(name, folder, remedy, tmp_path):
    with pytest.raises(DatasetMissing) as caught:
        require_files(name, tmp_path)
    assert f"dataset {name} is not in " in caught.value.detail
    assert str(tmp_path / folder) in caught.value.detail
    assert "put its files there, point FORERUN_DATA_DIR at the folder" in caught.value.detail
    assert f"or {remedy}" in caught.value.detail
    (tmp_path / folder).mkdir(parents=True)
    require_files(name, tmp_path)


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
    assert count_images(tmp_path) == 4
    assert count_images(tmp_path / "absent") == 0
