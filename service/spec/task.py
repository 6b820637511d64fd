"""What a job trains its model for: classification, or Barlow Twins with a linear probe."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.types import Frozen, LearningRate, named

Width = Annotated[int, Field(ge=1, le=65_536)]


class ClassificationTask(Frozen):
    """Classification: the model learns the label of each image by cross entropy."""

    name: Literal["classification"] = Field("classification", description="Cross entropy with the labels.")


class Probe(Frozen):
    """The linear probe of Barlow Twins: a linear classifier on frozen features, trained by momentum SGD under a cosine
    (Zbontar et al. 2021, section 3.1)."""

    train_samples: int = Field(5_000, ge=1, description="Training samples, with their labels, that it takes at most.")
    epochs: int = Field(20, ge=1, le=1000, description="Epochs of the probe, over its training samples.")
    learning_rate: LearningRate = Field(0.1, description="Learning rate of the probe at the start of its cosine.")


class BarlowTwinsTask(Frozen):
    """Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230): embeddings of two views of an image shall agree, and their
    parts shall be decorrelated."""

    name: Literal["barlow-twins"] = Field(description="Barlow Twins, which takes no labels but those of the probe.")
    projector: list[Width] = Field(
        [2048, 2048, 2048],
        min_length=1,
        max_length=8,
        description="Widths of the projector's layers; the last one is that of the embeddings.",
    )
    off_diagonal_weight: float = Field(
        0.0051, ge=0, le=1, description="lambda, the weight of the redundancy reduction."
    )
    probe: Probe = Field(Probe(), description="The linear probe whose accuracies are val_accuracy and test_accuracy.")


_Tasks = Annotated[ClassificationTask | BarlowTwinsTask, Field(discriminator="name")]
TaskName = Literal["classification", "barlow-twins"]
Task = Annotated[_Tasks, named(TaskName, _Tasks)]
