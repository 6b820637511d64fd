"""Answers about what a spec may name: models, datasets, learning-rate sets, methods and the rest."""

from pydantic import Field

from service.wire.answers.base import Answer


class DatasetFacts(Answer):
    """A dataset of known size, with the facts that a spec and a model need."""

    name: str = Field(description="Its name in a spec.")
    train_samples: int = Field(description="Training images, those of the validation split included.")
    test_samples: int = Field(description="Test images.")
    classes: int = Field(description="Number of classes.")
    channels: int = Field(description="Colour channels of an image.")
    image_size: int = Field(description="Side of an image in pixels; images are square.")
    can_download: bool = Field(description="Whether `download: true` in a spec fetches it.")


class LrSetPhaseFacts(Answer):
    """A phase of a named learning-rate set, such as `mix`: which set it takes, and until when."""

    lr_set: str = Field(description="Name of the set that it takes.")
    until: float = Field(description="Share of the training after which the phase ends.", examples=[0.475])


class LrSetFacts(Answer):
    """A named learning-rate set: its factors on the current learning rate, or the phases of sets one after another."""

    name: str = Field(description="Its name in a spec.")
    factors: list[float] | None = Field(description="Factors on the current learning rate; null: it has phases.")
    phases: list[LrSetPhaseFacts] | None = Field(description="Its phases, one after another; null: it has factors.")


class Catalog(Answer):
    """The names that a spec may use, and the facts of datasets and learning-rate sets behind them."""

    models: list[str] = Field(description="Names of models.")
    datasets: list[DatasetFacts] = Field(
        description="Datasets of known size; `image-folder` takes any tree of images beside them."
    )
    lr_sets: list[LrSetFacts] = Field(description="Sets of candidate learning rates by name.")
    tasks: list[str] = Field(description="Names of tasks.")
    optimizers: list[str] = Field(description="Names of optimizers.")
    metrics: list[str] = Field(description="What branches can be judged by.")
    selectors: list[str] = Field(description="Names of selectors.")
    methods: list[str] = Field(description="Names of methods.")
    presets: list[str] = Field(description="Names of presets of whole specs.")
    experiments: list[str] = Field(description="Names of the papers' experiments.")
