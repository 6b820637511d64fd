import pytest

from service.errors import DatasetMissing
from service.spec.catalog import DATASETS, MODELS, require_files


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
