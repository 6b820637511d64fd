"""What a user may ask for: frozen types, validated at the door, with defaults and units.

Epochs count from 1. Learning rates are positive and finite. The names follow torch and the field; the paper's
alpha is `pretrain.iterations`, its beta `main_train.iterations`.
"""

import difflib
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from service.spec.catalog import DATASETS, LARGEST_IMAGE, MODELS, SMALLEST_IMAGE, how_to_fetch
from service.spec.methods import Budget, Envelope, Method, StptMethod
from service.spec.optimizer import Optimizer, SgdOptimizer
from service.spec.presets import PRESETS, PresetSpec
from service.spec.task import ClassificationTask, Task
from service.spec.types import MAX_BATCH, MAX_LEARNING_RATE, MAX_LEARNING_RATES, Factor, Frozen, LearningRate, named

# --- learning-rate sets (S1, Tables 2 to 4) ------------------------------------------------------

PresetName = Literal["paper-alpha", "narrow", "middle", "wide", "mix"]


_KIND = "May be left out: the other keys tell it."
_CAP = "No candidate is larger."


class RelativeLrSet(Frozen):
    """Candidates = current learning rate x factor, capped at `max_learning_rate`."""

    kind: Literal["relative"] = Field("relative", description=_KIND)
    factors: list[Factor] = Field(
        min_length=1, max_length=MAX_LEARNING_RATES, description="What the current learning rate is multiplied by."
    )
    max_learning_rate: LearningRate = Field(1.0, description=_CAP)


class AbsoluteLrSet(Frozen):
    """The candidates themselves, the same every epoch."""

    kind: Literal["absolute"] = Field("absolute", description=_KIND)
    learning_rates: list[LearningRate] = Field(
        min_length=1, max_length=MAX_LEARNING_RATES, description="The candidates of every epoch."
    )


class PresetLrSet(Frozen):
    """A set of S1 by name: capped relative factors; `mix` is S1's Table 4, scaled to the epochs."""

    kind: Literal["preset"] = Field("preset", description=_KIND)
    name: PresetName = Field(description="The set's name; GET /v1/catalog has its factors.")
    max_learning_rate: LearningRate = Field(1.0, description=_CAP)


def _tagged(shorthand: dict[str, str], union: Any) -> Any:
    """Fill in `kind` where the keys tell it, and read a bare string as a preset's name. The JSON schema has both."""

    def tag(value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": "preset", "name": value}
        if isinstance(value, dict) and "kind" not in value:
            for key, kind in shorthand.items():
                if key in value:
                    return {"kind": kind, **value}
        return value

    return BeforeValidator(tag, json_schema_input_type=PresetName | union)


_KINDS = {"factors": "relative", "learning_rates": "absolute", "name": "preset"}
_SimpleLrSets = Annotated[RelativeLrSet | AbsoluteLrSet | PresetLrSet, Field(discriminator="kind")]
SimpleLrSet = Annotated[_SimpleLrSets, _tagged(_KINDS, _SimpleLrSets)]


class LrSetPhase(Frozen):
    """From `first_epoch` (counted from 1) until the next phase begins."""

    first_epoch: int = Field(ge=1, description="The first epoch that takes this set; no later than the last epoch.")
    lr_set: SimpleLrSet = Field(description="The set: any but another schedule.")


class ScheduledLrSet(Frozen):
    """A schedule of sets (S1, Table 4): each phase lasts until the next begins."""

    kind: Literal["schedule"] = Field("schedule", description=_KIND)
    phases: list[LrSetPhase] = Field(min_length=1, max_length=64, description="By ascending first epoch.")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        firsts = [phase.first_epoch for phase in self.phases]
        if firsts != sorted(set(firsts)):
            raise ValueError(f"phases must begin at ascending epochs, not {firsts}; reorder them")
        return self


class Stage(Frozen):
    """One epoch's search."""

    factors: list[Factor] = Field(
        min_length=1, max_length=MAX_LEARNING_RATES, description="On the current learning rate."
    )
    pretrain_share: float | None = Field(
        None, gt=0, le=1, description="alpha as a share of the epoch; null: as `pretrain.iterations` says."
    )


class StagedLrSet(Frozen):
    """Search first, then train: one stage an epoch after the warm-up; behind the last, the learning rate stays."""

    kind: Literal["stages"] = Field("stages", description=_KIND)
    stages: list[Stage] = Field(min_length=1, max_length=64, description="Of the first epochs after the warm-up.")
    max_learning_rate: LearningRate = Field(MAX_LEARNING_RATE, description=_CAP)
    max_extensions: int = Field(
        4,
        ge=0,
        le=16,
        description="Further candidates that a stage may try, at the ratio of the last two, when an end one is best.",
    )


class HistoryLrSet(Frozen):
    """What past jobs have chosen: one short stage around the learning rate that GET /v1/recommendation would give,
    which becomes `initial_learning_rate`. When the job is accepted the stored spec gets both in its place."""

    kind: Literal["history"] = Field("history", description=_KIND)
    from_history: Literal[True] = Field(description="true: from past jobs of this model, dataset and optimizer.")


_LrSets = Annotated[
    RelativeLrSet | AbsoluteLrSet | PresetLrSet | ScheduledLrSet | StagedLrSet | HistoryLrSet,
    Field(discriminator="kind"),
]
KINDS_BY_KEY = {**_KINDS, "phases": "schedule", "stages": "stages", "from_history": "history"}
LrSet = Annotated[_LrSets, _tagged(KINDS_BY_KEY, _LrSets)]
# Wide, then fine, each over a whole epoch: see docs/selection.md
DEFAULT_LR_SET = StagedLrSet(
    stages=[
        Stage(factors=[10.0, 3.0, 1.0, 0.3, 0.1], pretrain_share=1.0),
        Stage(factors=[2.0, 1.0, 0.5], pretrain_share=1.0),
    ]
)
HISTORY_LR_SET = StagedLrSet(stages=[Stage(factors=[2.0, 1.0, 0.5], pretrain_share=1.0)])


# --- model and data --------------------------------------------------------------------------------


def _known_model(name: str) -> str:
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "GET /v1/catalog lists the models"
        raise ValueError(f"no model of this name; {hint}")
    return name


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character NUL (PostgreSQL cannot keep it); remove it")
    return text


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\x00" in path:
        raise ValueError("must be a folder inside the data folder: a relative path without '..'")
    return path


DatasetName = Literal["digits", "mnist", "fashion-mnist", "cifar10", "tiny-imagenet"]


_SUBSET = "Train on so many alone, the same ones for every job; null: all that are not held out."


class NamedDataset(Frozen):
    """A dataset of known size; its files lie in the service's data folder (`digits` brings its own)."""

    name: DatasetName = Field(description="Which one; GET /v1/catalog has their sizes.")
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

    name: Literal["image-folder"] = Field(description="This kind of dataset.")
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


# --- the phases of short-term pre-training (S1, Algorithm 1) ---------------------------------------


class Warmup(Frozen):
    """The first epochs at one small learning rate, without Pre-train."""

    epochs: int | None = Field(0, ge=0, description="null: a tenth of the epochs, rounded (S1: 4 of 40).")
    learning_rate: LearningRate = Field(0.005, description="Of all warm-up epochs.")


class Pretrain(Frozen):
    """alpha iterations of every candidate from the same state."""

    weights: Literal["raw", "averaged"] = Field(
        "averaged", description="What is judged: the last weights, or the mean of those of the last half of alpha."
    )

    iterations: int | None = Field(None, ge=1, description="alpha; null: 8 % of an epoch (S1: 200 of 2500).")
    placement: Literal["split", "sequential"] = Field(
        "split", description="split: branches side by side on groups of workers; sequential: one after another on all."
    )
    batch: Literal["global", "per_worker"] = Field(
        "global",
        description="split only: a branch takes the global batch, or one worker's share for each of its workers.",
    )
    max_retries: int = Field(
        2, ge=0, le=10, description="When every branch diverges: again with all candidates / 10 (a single one: / 2)."
    )


class MainTrain(Frozen):
    """beta iterations at the chosen learning rate on all workers."""

    iterations: int | None = Field(None, ge=0, description="beta; null: the rest of the epoch.")


class Guards(Frozen):
    """What saves a training from a choice that turns out badly. On unless switched off."""

    extend: bool = Field(True, description="When no branch improves on the epoch's start, try far smaller ones too.")
    skip_dead: bool = Field(
        True, description="In the first epoch, a branch whose last weights have learned nothing is not chosen."
    )
    rollback: bool = Field(True, description="Undo a Main-train that diverges or collapses; go on with the runner-up.")
    max_accuracy_drop: float = Field(
        0.2, gt=0, le=1, description="A Main-train has collapsed when validation accuracy falls by more than this."
    )
    rescale_momentum: bool = Field(
        True,
        description="sgd, lars, tvlars: a rise of the learning rate does not enlarge what momentum carries over.",
    )


class Audit(Frozen):
    """Train losing branches to the end of the epoch too, to see whether the choice was right. Changes nothing else."""

    every: int = Field(5, ge=1, le=100_000, description="Epochs from one audit to the next, from the first Pre-train.")
    branches: int = Field(2, ge=1, le=64, description="Losing branches, drawn at random.")


class Telemetry(Frozen):
    """Norms of each layer's weights and gradient as the training goes (S3, Fig. 2). Changes nothing else."""

    every: int = Field(
        10, ge=1, le=100_000, description="Steps from one sample to the next, more where an epoch would have too many."
    )


# --- selectors: which branch goes on ----------------------------------------------------------------


class GreedySelector(Frozen):
    """S1, Algorithm 1: the best metric."""

    name: Literal["greedy"] = Field("greedy", description="The best metric wins.")


class ToleranceSelector(Frozen):
    """The largest learning rate whose metric is nearly as good as the best."""

    name: Literal["tolerance"] = Field("tolerance", description="The largest that is nearly as good as the best.")
    tolerance: float = Field(
        0.03, ge=0, le=1, description="Loss: share of the best loss. Accuracy: share of the best error (1 - accuracy)."
    )


_Selectors = Annotated[GreedySelector | ToleranceSelector, Field(discriminator="name")]
SelectorName = Literal["greedy", "tolerance"]
Selector = Annotated[_Selectors, named(SelectorName, _Selectors)]

Metric = Literal["val_accuracy", "val_loss", "train_accuracy"]


class JobSpec(Frozen):
    """One tuning job."""

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
                    "pretrain": {"iterations": 20, "placement": "sequential"},
                },
            ],
        }
    )

    name: Annotated[str, Field(max_length=200), AfterValidator(_without_nul)] = Field(
        "", description="Free text to find the job by."
    )
    experiment: Annotated[str, Field(max_length=100), AfterValidator(_without_nul)] = Field(
        "", description="Free text that jobs of one study share; the job list filters by it."
    )
    preset: PresetSpec | None = Field(None, description="Where its defaults come from; what you say goes before it.")
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
    seed: int = Field(0, ge=0, lt=2**63, description="Of initial weights, the order of samples and dropout.")
    initial_learning_rate: LearningRate = Field(0.1, description="Current learning rate of the first Pre-train.")
    lr_set: LrSet = Field(DEFAULT_LR_SET, description="The candidates of each epoch, or the name of a preset.")
    envelope: Envelope = Field(
        "linear", description="What every learning rate is multiplied by: 1 at the start of the training, 0 at its end."
    )
    warmup: Warmup = Field(Warmup(), description="The epochs before the first Pre-train.")
    pretrain: Pretrain = Field(Pretrain(), description="How the candidates of an epoch are tried.")
    main_train: MainTrain = Field(MainTrain(), description="How the chosen one carries on.")
    metric: Metric = Field("val_loss", description="What branches are judged by after alpha iterations.")
    selector: Selector = Field(GreedySelector(), description="How the branch that goes on is chosen.")
    guards: Guards = Field(Guards(), description="What is done about an epoch that went wrong.")
    audit: Audit | None = Field(
        None, description="What is tried beside the training to judge its choices; null: nothing."
    )
    telemetry: Telemetry | None = Field(
        None, description="What is recorded of each layer of every training that is no search; null: nothing."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast on GPUs, float32 on CPUs. Weights are float32 always."
    )
    methods: list[Method] = Field(
        [StptMethod()], min_length=1, max_length=16, description="Runs of the job: trainings first, then searches."
    )
    seeds: int = Field(1, ge=1, le=100, description="Each method once with each of the seeds seed, seed + 1, …")
    budget: Budget | None = Field(
        None,
        description="Of each seed of a baseline: all but stpt, sweep, reference, replay, schedule, study, batch-ramp. "
        "null: no limit.",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        """What the preset says stands where the user says nothing, also inside pretrain, warmup and guards."""
        if not isinstance(value, dict) or not isinstance(name := value.get("preset"), str) or name not in PRESETS:
            return value
        preset = PRESETS[name]
        inside = {
            key: preset[key] | value[key]
            for key in ("pretrain", "warmup", "guards")
            if isinstance(value.get(key), dict)
        }
        return preset | value | inside

    @model_validator(mode="after")
    def _seeds_fit(self) -> Self:
        if self.seed + self.seeds > 2**63:
            raise ValueError(f"the last of {self.seeds} seeds from {self.seed} on is over 2^63 - 1; lower seed")
        return self

    @field_validator("methods")
    @classmethod
    def _distinct(cls, methods: list[Any]) -> list[Any]:
        names = [method.name for method in methods]
        if len(set(names)) < len(names):
            raise ValueError(f"each method once, not {', '.join(names)}; leave the repetition out")
        return methods

    @property
    def warmup_epochs(self) -> int:
        return (self.epochs + 5) // 10 if self.warmup.epochs is None else self.warmup.epochs

    @property
    def batch_per_worker(self) -> int:
        return self.global_batch_size // self.workers

    @property
    def passes(self) -> list[int]:
        """Samples of each forward pass over a worker's share of the batch: as equal as can be."""
        share = self.batch_per_worker
        count = -(-share // (self.microbatch_size or share))
        return [share // count + (number < share % count) for number in range(count)]
