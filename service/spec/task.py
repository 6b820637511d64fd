"""What a job trains its model for: classification, or Barlow Twins with a linear probe."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.types import Frozen, LearningRate, named

Width = Annotated[int, Field(ge=1, le=65_536)]


class ClassificationTask(Frozen):
    """A label for each image."""

    name: Literal["classification"] = Field("classification", description="Cross entropy with the labels.")


class Probe(Frozen):
    """A linear classifier on frozen features, by momentum SGD under a cosine (Zbontar et al. 2021, section 3.1)."""

    train_samples: int = Field(5_000, ge=1, description="Training samples, with their labels, that it takes at most.")
    epochs: int = Field(20, ge=1, le=1000, description="Its own, over those.")
    learning_rate: LearningRate = Field(0.1, description="Its own, at the start of the cosine.")


class BarlowTwinsTask(Frozen):
    """Zbontar et al. 2021, arXiv 2103.03230: embeddings of two views of an image shall agree, and their parts not."""

    name: Literal["barlow-twins"] = Field(description="Without labels, but for those of the probe.")
    projector: list[Width] = Field(
        [2048, 2048, 2048], min_length=1, max_length=8, description="Widths of its layers; the last: of embeddings."
    )
    off_diagonal_weight: float = Field(0.0051, ge=0, le=1, description="lambda, of the redundancy reduction.")
    probe: Probe = Field(Probe(), description="What val_accuracy and test_accuracy are those of.")


_Tasks = Annotated[ClassificationTask | BarlowTwinsTask, Field(discriminator="name")]
TaskName = Literal["classification", "barlow-twins"]
Task = Annotated[_Tasks, named(TaskName, _Tasks)]
