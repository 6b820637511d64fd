"""JobSpec, which is what a user may ask for: frozen types, validated at the door, with defaults and units.

Epochs count from 1. Learning rates are positive and finite. The names follow torch and the field; alpha of STPT (Yamada
et al., Algorithm 1) is `pretrain.iterations`, its beta `main_train.iterations`.
"""

import difflib
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from service.spec.budget import Budget
from service.spec.catalog import MODELS
from service.spec.data import Dataset
from service.spec.lr_set import (
    DEFAULT_LR_SET,
    LrSet,
)
from service.spec.methods import Method
from service.spec.methods.base import LrSchedule, MethodSpec
from service.spec.methods.stpt import StptMethod
from service.spec.optimizer import Optimizer, SgdOptimizer
from service.spec.presets import PresetName, with_preset
from service.spec.task import ClassificationTask, Task
from service.spec.types import MAX_BATCH, Frozen, LearningRate


def _known_model(name: str) -> str:
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "GET /v1/catalog lists the models"
        raise ValueError(f"no model of this name; {hint}")
    return name


class Telemetry(Frozen):
    """Record the norms of each layer's weights and gradient as the training goes, as Fig. 2 of Do et al. ("Revisiting
    LARS for Large Batch Training Generalization of Neural Networks") has them. It changes nothing else."""

    every: int = Field(
        10, ge=1, le=100_000, description="Steps from one sample to the next, more where an epoch would have too many."
    )


Kind = TypeVar("Kind", bound=MethodSpec)


class JobSpec(Frozen):
    """The spec of one tuning job: what is trained on what, by which methods, on how many workers."""

    model_config = ConfigDict(
        json_schema_extra={
            # what a preset says need not be said again
            "required": [],
            "anyOf": [
                {"required": ["model", "dataset", "epochs"]},
                {"required": ["preset"], "properties": {"preset": {"type": "string"}}},
            ],
            "examples": [
                {
                    "name": "lenet5 on digits",
                    "model": "lenet5",
                    "dataset": "digits",
                    "global_batch_size": 64,
                    "epochs": 10,
                    "workers": 2,
                },
                {
                    "model": "resnet18-cifar",
                    "dataset": {"name": "cifar10", "download": True},
                    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
                    "global_batch_size": 128,
                    "epochs": 30,
                    "workers": 4,
                    "lr_set": {"learning_rates": [0.2, 0.1, 0.05, 0.02]},
                    "methods": [{"name": "stpt", "pretrain": {"iterations": 20, "placement": "sequential"}}, "cosine"],
                },
            ],
        }
    )

    name: str = Field("", max_length=200, description="Printable text to find the job by.")
    experiment: str = Field(
        "",
        max_length=100,
        description="Printable text that jobs of one experiment share; the job list filters by it.",
    )
    preset: PresetName | None = Field(
        None, description="Name of a set of defaults; what the spec itself says goes before them."
    )
    model: Annotated[str, AfterValidator(_known_model)] = Field(
        max_length=100, description="A model of GET /v1/catalog that takes images of the dataset's size."
    )
    dataset: Dataset = Field(description="A dataset, or its name alone.")
    task: Task = Field(ClassificationTask(), description="What the model is trained for, or its name alone.")
    optimizer: Optimizer = Field(SgdOptimizer(), description="An optimizer, or its name alone.")
    global_batch_size: int = Field(
        64, ge=1, le=MAX_BATCH, description="Samples per iteration over all workers; a multiple of `workers`."
    )
    microbatch_size: int | None = Field(
        None,
        ge=1,
        le=MAX_BATCH,
        description="Samples of a forward pass at most: a worker takes a larger share in several, by gradient "
        "accumulation. null: its whole share at once.",
    )
    epochs: int = Field(ge=1, le=100_000, description="Epochs to train, warm-up included.")
    workers: int = Field(1, ge=1, le=4096, description="World size: data-parallel processes.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: one GPU a worker where the cluster has them."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the initial weights, the order of samples and dropout.")
    initial_learning_rate: LearningRate = Field(
        0.1, description="What stpt's race or first Pre-train goes by, and what methods without a search begin with."
    )
    lr_set: LrSet = Field(
        DEFAULT_LR_SET,
        description="The range of everything that searches: the candidates of stpt's epochs, the first of which sweeps "
        "and searches go over; or the name of a set.",
    )
    lr_schedule: LrSchedule = Field(
        "linear",
        description="What learning rates are multiplied by over a training: 1 at its start; linear and cosine fall to "
        "0 at its end.",
    )
    telemetry: Telemetry | None = Field(
        None, description="What is recorded of each layer of every training that is no search; null: nothing."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast on GPUs, float32 on CPUs. Weights are float32 always."
    )
    methods: list[Method] = Field(
        [StptMethod()], min_length=1, max_length=32, description="Runs of the job: trainings first, then searches."
    )
    seeds: int = Field(1, ge=1, le=100, description="Each method once with each of the seeds seed, seed + 1, …")
    budget: Budget | None = Field(
        None,
        description="What each run may take with each seed, its search included; all but sweep, reference, replay, "
        "fixed, study and batch-ramp, and the run of stpt that the budget is relative to. null: no limit.",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        """What the preset says stands where the user says nothing, also of each stpt among the methods."""
        return with_preset(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _seeds_fit(self) -> Self:
        if self.seed + self.seeds > 2**63:
            raise ValueError(f"the last of {self.seeds} seeds from {self.seed} on is over 2^63 - 1; lower seed")
        return self

    @field_validator("methods")
    @classmethod
    def _distinct(cls, methods: list[Any]) -> list[Any]:
        labels = [method.label for method in methods]
        if len(set(labels)) < len(labels):
            raise ValueError(
                f"each run needs a label of its own, not {', '.join(labels)}; give label, or leave the repetition out"
            )
        return methods

    def run(self, label: str | None = None) -> Method | None:
        """The method of the run with that label, by default of the first run; None when there is no such run."""
        return next((method for method in self.methods if label in (None, method.label)), None)

    @property
    def measuring_run(self) -> str | None:
        """The label of the run that the budget is relative to; None when it is relative to none."""
        return None if self.budget is None else self.budget.relative_to

    def methods_of(self, kind: type[Kind]) -> list[Kind]:
        """Those of the job's methods that are of the class `kind`, in the order of the spec."""
        return [method for method in self.methods if isinstance(method, kind)]

    @property
    def batch_per_worker(self) -> int:
        """The samples of an iteration that one worker takes: its share of the global batch."""
        return self.global_batch_size // self.workers

    @property
    def passes(self) -> list[int]:
        """The samples of each forward pass over a worker's share of the batch, as equal as can be, the larger ones
        first."""
        share = self.batch_per_worker
        count = -(-share // (self.microbatch_size or share))
        return [share // count + (number < share % count) for number in range(count)]
