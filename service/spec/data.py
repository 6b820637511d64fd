"""What a model is trained on: a dataset of known size by its name, or a tree of image files."""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from service.spec.catalog import DATASETS, LARGEST_IMAGE, SMALLEST_IMAGE, how_to_fetch
from service.spec.types import Frozen, named


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\x00" in path:
        raise ValueError("must be a folder inside the data folder: a relative path without '..'")
    return path


DatasetName = Literal["digits", "mnist", "fashion-mnist", "cifar10", "tiny-imagenet"]
_SUBSET = "Train on this many samples alone, the same ones for every job; null: all that are not held out."


class NamedDataset(Frozen):
    """A dataset of known size; its files lie in the service's data folder (`digits` brings its own)."""

    name: DatasetName = Field(description="Name of the dataset; GET /v1/catalog lists them with their sizes.")
    download: bool = Field(False, description="Fetch the files from their publisher when they are absent.")
    validation_fraction: float = Field(0.1, gt=0, le=0.5, description="Share of the training split held out.")
    train_samples: int | None = Field(None, ge=1, description=_SUBSET)

    @model_validator(mode="after")
    def _downloadable(self) -> Self:
        if self.download and not DATASETS[self.name].can_download:
            by_hand = how_to_fetch(self.name) if DATASETS[self.name].published else "it needs none"
            raise ValueError(f"{self.name} has no download: {by_hand}; leave download out")
        return self


class FolderDataset(Frozen):
    """A class-per-folder tree of images: PATH/train/CLASS/IMAGE and PATH/test/CLASS/IMAGE (or val/)."""

    name: Literal["image-folder"] = Field(description="A tree of image files.")
    path: Annotated[str, AfterValidator(_inside)] = Field(
        min_length=1, max_length=1024, description="Folder inside the service's data folder."
    )
    image_size: int = Field(
        224, ge=SMALLEST_IMAGE, le=LARGEST_IMAGE, description="Pixels: shorter side resized to this, centre cropped."
    )
    validation_fraction: float = Field(0.1, gt=0, le=0.5, description="Share of the training split held out.")
    train_samples: int | None = Field(None, ge=1, description=_SUBSET)


_Datasets = Annotated[NamedDataset | FolderDataset, Field(discriminator="name")]
Dataset = Annotated[_Datasets, named(DatasetName, _Datasets)]
