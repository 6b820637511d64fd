"""Studies, which train in several ways at several batch sizes: their fields and rules."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from service.errors import FieldError
from service.spec.methods.autolrs import AutoLrsMethod
from service.spec.methods.base import Facts, Probe, Work
from service.spec.methods.cosine import CosineMethod
from service.spec.methods.d_adaptation import DAdaptationMethod
from service.spec.methods.dog import DogMethod
from service.spec.methods.fixed import FixedMethod
from service.spec.methods.linear import LinearMethod
from service.spec.methods.lr_range_test import LrRangeTestMethod
from service.spec.methods.mechanic import MechanicMethod
from service.spec.methods.one_cycle import OneCycleMethod
from service.spec.methods.polling import PollingMethod
from service.spec.methods.prodigy import ProdigyMethod
from service.spec.methods.prodigy_schedule_free import ProdigyScheduleFreeMethod
from service.spec.methods.reference import ReferenceMethod
from service.spec.methods.schedule_free import ScheduleFreeMethod
from service.spec.methods.search import Config, Distribution, GpusPerTrial, Grid, SearchMethod, grid
from service.spec.methods.stpt import StptMethod
from service.spec.methods.wsd import WsdMethod
from service.spec.optimizer import Optimizer
from service.spec.types import MAX_BATCH, Frozen, LearningRate, named

if TYPE_CHECKING:
    from service.spec.job import JobSpec


_VariantMethods = Annotated[
    StptMethod
    | ReferenceMethod
    | CosineMethod
    | LinearMethod
    | WsdMethod
    | OneCycleMethod
    | ScheduleFreeMethod
    | ProdigyMethod
    | ProdigyScheduleFreeMethod
    | DogMethod
    | DAdaptationMethod
    | MechanicMethod
    | LrRangeTestMethod
    | PollingMethod
    | AutoLrsMethod
    | FixedMethod,
    Field(discriminator="name"),
]
_VariantName = Literal[
    "stpt",
    "reference",
    "cosine",
    "linear",
    "wsd",
    "one-cycle",
    "schedule-free",
    "prodigy",
    "prodigy-schedule-free",
    "dog",
    "d-adaptation",
    "mechanic",
    "lr-range-test",
    "polling",
    "autolrs",
    "fixed",
]


class Variant(Frozen):
    """One way to train in a study, which tries it at every batch size."""

    name: str = Field(min_length=1, max_length=50, description="Printable text: its line in table and figure.")
    method: Annotated[_VariantMethods, named(_VariantName, _VariantMethods)] = Field(
        description="A training; it has the job's epochs, and the rest of the spec holds for it."
    )
    optimizer: Optimizer | None = Field(None, description="Optimizer of the variant; null: the job's.")
    initial_learning_rate: LearningRate | None = Field(
        None,
        description="Initial learning rate of the variant, for each optimizer has a scale of its own; null: the job's.",
    )


class StudyMethod(SearchMethod):
    """A study of every variant at every batch size, like those of Signer & Barbier. Each trial is a training in one
    process."""

    is_replayable: ClassVar[bool] = False

    name: Literal["study"] = Field("study", description="Name of this method.")
    batch_sizes: list[Annotated[int, Field(ge=1, le=MAX_BATCH)]] = Field(
        min_length=1, max_length=16, description="Global batch sizes."
    )
    variants: list[Variant] = Field(min_length=1, max_length=16, description="What is tried at each of them.")
    gpus_per_trial: GpusPerTrial = 1.0

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, values in (("batch size", self.batch_sizes), ("variant", [one.name for one in self.variants])):
            if len(set(values)) < len(values):
                raise ValueError(f"each {what} once, not {', '.join(map(str, values))}; leave the repetition out")
        return self

    def names(self) -> dict[str, str]:
        """The names of the variants, by their places."""
        return {f"variants[{number}].name": variant.name for number, variant in enumerate(self.variants)}

    def space(self, spec: "JobSpec", candidates: Sequence[float]) -> dict[str, Distribution]:
        """The search space of the study: a choice of its batch sizes, and one of its variants by name."""
        names = [variant.name for variant in self.variants]
        return {"global_batch_size": Distribution(choice=self.batch_sizes), "variant": Distribution(choice=names)}

    def most_trials(self, spec: "JobSpec", facts: Facts) -> int:
        """The number of trials of one seed: one for each variant and batch size."""
        return len(self.batch_sizes) * len(self.variants)

    def points(self, spec: "JobSpec", facts: Facts) -> Grid:
        """The points of the study: every variant at every batch size, as hyperparameters by name."""
        return grid(self.space(spec, ()), 0)

    def work(self, spec: "JobSpec", facts: Facts) -> Work:
        """The trials of one seed, and the training samples that they take: the sum over the points, each with its
        batch."""
        assert facts.of_trial is not None
        points, samples = self.points(spec, facts), 0
        for point in points:
            trial = self.trial_spec(spec, point, seed=spec.seed, epochs=spec.epochs)
            [training] = trial.methods
            samples += training.work(trial, facts.of_trial(trial)).samples
        return Work(points.size, samples)

    def trial_document(self, document: dict[str, Any], config: Config) -> dict[str, Any]:
        """The `document` of the job's spec with the variant's training as its method, at the point's batch size, in one
        process."""
        variant = self.variant(config)
        own = {"optimizer": variant.optimizer, "initial_learning_rate": variant.initial_learning_rate}
        point = {"global_batch_size": config["global_batch_size"], "workers": 1, "methods": [variant.method]}
        return document | point | {key: value for key, value in own.items() if value is not None}

    def reported(self, config: Config, spec: "JobSpec") -> dict[str, Any]:
        """The hyperparameters of a trial as its record has them: batch size, variant, and the optimizer of the
        variant."""
        return {**config, "optimizer": (self.variant(config).optimizer or spec.optimizer).name}

    def variant(self, config: Config) -> Variant:
        """The variant that the trial with the hyperparameters `config` trains."""
        [variant] = [variant for variant in self.variants if variant.name == config["variant"]]
        return variant

    def probes(self, spec: "JobSpec", field: str, train_samples: int | None) -> Iterator[FieldError | Probe]:
        """Probes of every point of the study; what is wrong is told of the batch size or of the variant."""
        for place, batch in enumerate(self.batch_sizes):
            for number, variant in enumerate(self.variants):

                def told(error: FieldError, place: int = place, batch: int = batch, number: int = number) -> FieldError:
                    where = error.field
                    if where == "global_batch_size":
                        where = f"{field}.batch_sizes[{place}]"
                    elif where.startswith("methods[0]"):
                        where = f"{field}.variants[{number}].method" + where.removeprefix("methods[0]")
                    return FieldError(where, error.value, f"with batch {batch}: {error.message}")

                point = {"global_batch_size": batch, "variant": variant.name}
                yield self.probe(spec, point, told, alone=False)
