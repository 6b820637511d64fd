"""Valid specs: a small one written out, and a Hypothesis strategy for all of them."""

from typing import Any

from hypothesis import strategies as st

from service.algorithms.epoch_plan import split_sizes
from service.spec.catalog import DATASETS, MODELS, image_sizes
from service.spec.data import FolderDataset, NamedDataset
from service.spec.job import JobSpec, Telemetry
from service.spec.lr_set import (
    AbsoluteLrSet,
    LrSetPhase,
    NamedLrSet,
    PhasedLrSet,
    RaceLrSet,
    RelativeLrSet,
    Stage,
    StagedLrSet,
)
from service.spec.methods.autolrs import AutoLrsMethod
from service.spec.methods.base import Schedule
from service.spec.methods.fixed import (
    CosineLrSchedule,
    FixedMethod,
    FixedWarmup,
    PolynomialLrSchedule,
    StepLrSchedule,
)
from service.spec.methods.lr_range_test import LrRangeTestMethod
from service.spec.methods.reference import ReferenceMethod
from service.spec.methods.replay import ReplayMethod
from service.spec.methods.stpt import StptMethod
from service.spec.methods.sweep import SweepMethod
from service.spec.optimizer import (
    AdamOptimizer,
    AdaptiveOptimizer,
    LambOptimizer,
    LarsOptimizer,
    SgdOptimizer,
    TvlarsOptimizer,
)
from service.spec.scaling import Scaling
from service.spec.stpt import Audit, GreedySelector, Guards, MainTrain, Pretrain, ToleranceSelector, Warmup
from tests.builders import nested

SMALL = {"model": "lenet5", "dataset": "digits", "epochs": 10, "lr_set": "middle"}


def small(**changes: Any) -> dict[str, Any]:
    """`changes`: as `nested` takes them."""
    return nested(**{**SMALL, **changes})


RATE = st.floats(0, 1e6, exclude_min=True)
RATES = st.lists(RATE, min_size=1, max_size=64)
DECAY = st.floats(0, 1e3)
BETA = st.floats(0, 1, exclude_max=True)
FRACTION = st.floats(0, 0.5, exclude_min=True)
LR_SET_NAMES = st.sampled_from(["paper-alpha", "narrow", "middle", "wide", "mix"])

SIMPLE_LR_SETS = (
    st.builds(RelativeLrSet, factors=RATES, max_learning_rate=RATE)
    | st.builds(AbsoluteLrSet, learning_rates=RATES)
    | st.builds(NamedLrSet, name=LR_SET_NAMES, max_learning_rate=RATE)
)
STAGES = st.builds(
    StagedLrSet,
    stages=st.lists(
        st.builds(Stage, factors=RATES, pretrain_share=st.none() | st.floats(0, 1, exclude_min=True)),
        min_size=1,
        max_size=3,
    ),
    max_learning_rate=RATE,
    max_extensions=st.integers(0, 16),
)
RACES = st.builds(
    RaceLrSet,
    factors=st.lists(RATE, min_size=3, max_size=64),
    search_share=st.none() | st.floats(0, 0.9, exclude_min=True),
    warmup_share=BETA,
    max_learning_rate=RATE,
)
BETAS = st.lists(BETA, min_size=2, max_size=2)
EPS = st.floats(0, 1, exclude_min=True)
LARS: dict[str, Any] = {
    "adapt_1d": st.booleans(),
    "momentum": BETA,
    "trust_coefficient": st.floats(0, 1e3, exclude_min=True),
    "eps": EPS,
    "weight_decay": DECAY,
}
OPTIMIZERS = (
    st.builds(SgdOptimizer, momentum=st.floats(0.01, 0.99), nesterov=st.booleans(), weight_decay=DECAY)
    | st.builds(AdamOptimizer, name=st.sampled_from(["adam", "adamw"]), betas=BETAS, eps=EPS, weight_decay=DECAY)
    | st.builds(AdaptiveOptimizer, name=st.sampled_from(["adagrad", "adadelta", "rmsprop"]), weight_decay=DECAY)
    | st.builds(LarsOptimizer, name=st.just("lars"), **LARS)
    | st.builds(
        LambOptimizer,
        name=st.just("lamb"),
        adapt_1d=st.booleans(),
        betas=BETAS,
        eps=EPS,
        weight_decay=DECAY,
        bias_correction=st.booleans(),
        max_trust_ratio=st.none() | st.floats(0, 1e6, exclude_min=True),
    )
    | st.builds(
        TvlarsOptimizer,
        name=st.just("tvlars"),
        decay=st.floats(0, 1),
        delay_epochs=st.integers(0, 100_000),
        minimum=st.floats(0, 1),
        **LARS,
    )
    | st.builds(TvlarsOptimizer, name=st.just("tvlars"), base_batch_size=st.integers(1, 2**16), **LARS)
    | st.builds(TvlarsOptimizer, name=st.just("tvlars"), variant=st.just("reference_code"), decay=st.floats(0, 1))
)
LR_SCHEDULES = st.sampled_from(["constant", "linear", "cosine"])
SELECTORS = st.just(GreedySelector()) | st.builds(ToleranceSelector, tolerance=st.floats(0, 1))
GUARDS = st.builds(
    Guards,
    extend=st.booleans(),
    skip_dead=st.booleans(),
    rollback=st.booleans(),
    max_accuracy_drop=st.floats(0, 1, exclude_min=True),
    rescale_momentum=st.booleans(),
)
DECAYING = (
    st.builds(PolynomialLrSchedule, power=st.floats(0, 100, exclude_min=True))
    | st.builds(CosineLrSchedule, final=st.floats(0, 1))
    | st.builds(
        StepLrSchedule, factor=st.floats(0.01, 1), milestones=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3)
    )
)
METHODS = st.lists(
    st.just(StptMethod())
    | st.builds(SweepMethod, learning_rates=st.none() | RATES, lr_schedule=LR_SCHEDULES)
    | st.builds(
        LrRangeTestMethod,
        max_learning_rate=st.floats(1e-6, 1e6),
        iterations=st.none() | st.integers(10, 100_000),
        smoothing=BETA,
        divergence_threshold=st.floats(1, 1e6, exclude_min=True),
    )
    | st.builds(
        AutoLrsMethod,
        search_interval=st.none() | st.just([0.001, 0.1]),
        trials=st.integers(1, 64),
        stage_iterations=st.none() | st.integers(1, 1000),
        max_stage_iterations=st.none() | st.integers(1000, 10_000_000),
        kappa=st.floats(0, 1e9),
    )
    | st.builds(
        ReferenceMethod,
        learning_rate=RATE,
        factor=st.floats(1, 1e6, exclude_min=True),
        patience=st.integers(1, 100_000),
    )
    | st.builds(
        FixedMethod,
        learning_rate=st.floats(1e-3, 1),
        scaling=st.none()
        | st.builds(Scaling, rule=st.sampled_from(["none", "sqrt", "linear"]), base_batch_size=st.integers(1, 2**16)),
        warmup=st.none() | st.builds(FixedWarmup, kind=st.just("linear"), epochs=st.just(1)),
        lr_schedule=st.none() | DECAYING,
    )
    | st.builds(ReplayMethod, job=st.just("job-1"))  # the schedule is put in behind the door
    | st.builds(  # of one epoch, see below
        ReplayMethod,
        schedule=st.builds(
            Schedule,
            learning_rates=st.lists(RATE, min_size=1, max_size=1),
            lr_schedule=LR_SCHEDULES,
            warmup_epochs=st.integers(0, 5),
            warmup_share=BETA,
        ),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda method: method.name,
)
FOLDERS = st.builds(
    FolderDataset,
    name=st.just("image-folder"),
    path=st.lists(st.text("abcäλ .-_", min_size=1).filter(lambda s: s.strip(".")), min_size=1, max_size=3).map(
        "/".join
    ),
    image_size=st.integers(8, 1024),
    validation_fraction=FRACTION,
)
NAMED = st.sampled_from(sorted(DATASETS)).flatmap(
    lambda name: st.builds(
        NamedDataset,
        name=st.just(name),
        download=st.booleans() if DATASETS[name].can_download else st.just(False),
        validation_fraction=FRACTION,
    )
)


@st.composite
def valid_specs(draw: st.DrawFn) -> JobSpec:
    """Any spec that `parse_spec` accepts."""
    dataset = draw(NAMED | FOLDERS)
    if isinstance(dataset, NamedDataset):
        samples = split_sizes(DATASETS[dataset.name].train_samples, dataset.validation_fraction)[0]
    else:
        samples = 2**20
    size = dataset.image_size if isinstance(dataset, FolderDataset) else DATASETS[dataset.name].image_size
    models = [name for name in MODELS if size >= image_sizes(name).lone and size % image_sizes(name).step == 0]
    workers = draw(st.integers(1, 64))
    batch = workers * draw(st.integers(1, min(samples, 2**16) // workers))
    iterations = samples // batch
    alpha = draw(st.none() | st.integers(1, iterations))
    beta = draw(st.none() | st.integers(0, iterations - (alpha or max(1, round(0.08 * iterations)))))
    methods = [m for m in draw(METHODS) if not isinstance(m, AutoLrsMethod) or iterations >= 4] or [StptMethod()]
    lr_sets = SIMPLE_LR_SETS | STAGES | RACES
    replays = any(isinstance(method, ReplayMethod) and method.schedule for method in methods)
    epochs = 1 if replays else draw(st.integers(1, 100_000))
    warmup = draw(st.none() | st.integers(0, epochs))
    warmup_epochs = (epochs + 5) // 10 if warmup is None else warmup
    first = draw(st.integers(1, min(warmup_epochs + 1, epochs)))
    firsts = draw(st.sets(st.integers(first + 1, epochs), max_size=5)) if first < epochs else set()
    phases = [LrSetPhase(first_epoch=e, lr_set=draw(SIMPLE_LR_SETS)) for e in [first, *sorted(firsts)]]
    placement = draw(st.sampled_from(["split", "sequential"]))
    lr_set = draw(lr_sets | st.just(PhasedLrSet(phases=phases)))
    own_lr_set = draw(st.none() | lr_sets | st.just(PhasedLrSet(phases=phases)))
    takes_shares = placement == "split" and not isinstance(own_lr_set or lr_set, RaceLrSet)
    stpt = StptMethod(
        lr_set=own_lr_set,
        warmup=Warmup(epochs=warmup, learning_rate=draw(RATE)),
        pretrain=Pretrain(
            iterations=alpha,
            placement=placement,
            weights=draw(st.sampled_from(["raw", "averaged"])),
            batch=draw(st.sampled_from(["global", "per_worker"] if takes_shares else ["global"])),
            max_retries=draw(st.integers(0, 10)),
        ),
        main_train=MainTrain(iterations=beta),
        metric=draw(st.sampled_from(["val_accuracy", "val_loss", "train_accuracy"])),
        selector=draw(SELECTORS),
        guards=draw(GUARDS),
        audit=draw(st.none() | st.builds(Audit, every=st.integers(1, 100_000), branches=st.integers(1, 64))),
    )
    return JobSpec(
        name=draw(st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=200)),
        model=draw(st.sampled_from(models)),
        dataset=dataset,
        optimizer=draw(OPTIMIZERS),
        global_batch_size=batch,
        microbatch_size=draw(st.none() | st.integers(1, 2**20)),
        epochs=epochs,
        workers=workers,
        device=draw(st.sampled_from(["auto", "cpu", "cuda"])),
        seed=draw(st.integers(0, 2**63 - 1)),
        initial_learning_rate=draw(RATE),
        lr_set=lr_set,
        lr_schedule=draw(LR_SCHEDULES),
        telemetry=draw(st.none() | st.builds(Telemetry, every=st.integers(1, 100_000))),
        precision=draw(st.sampled_from(["auto", "float32", "bfloat16"])),
        methods=[stpt if isinstance(method, StptMethod) else method for method in methods],
    )
