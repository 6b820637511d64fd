import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.epoch_plan import iterations_per_epoch, known_train_samples, split_sizes
from service.errors import FieldError, InvalidInput
from service.spec.job import JobSpec
from service.spec.methods.stpt import EpochPlan
from service.validation.across_fields import check_across_fields
from service.validation.door import check_searches
from tests.unit.service.specs import small


def spec(**changes) -> JobSpec:
    return JobSpec.model_validate(small(**changes))


def plan_epoch(job, samples) -> EpochPlan:
    """alpha and beta of the job's stpt, if the door lets it in."""
    iterations = iterations_per_epoch(job, samples)
    check_searches(job, samples)
    [method] = job.methods
    return method.epoch_plan(iterations)


def refusal(call, *args) -> list[FieldError]:
    with pytest.raises(InvalidInput) as caught:
        call(*args)
    return list(caught.value.errors)


# --- the epoch -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "samples", "plan"),
    [
        # Yamada et al.: 1,280,000 images, batch 512: 2500 iterations, alpha 200
        ({"global_batch_size": 512, "workers": 8}, 1_280_000, EpochPlan(200, 2300)),
        ({}, 1293, EpochPlan(2, 18)),  # digits; 8 % of 20 is 1.6
        ({"global_batch_size": 1}, 50, EpochPlan(4, 46)),
        ({"global_batch_size": 10}, 69, EpochPlan(1, 5)),  # 0.48, but at least 1
        ({"global_batch_size": 64}, 64, EpochPlan(1, 0)),  # a single batch
        ({"global_batch_size": 64}, 127, EpochPlan(1, 0)),  # the incomplete batch is left out
        ({"pretrain": {"iterations": 7}}, 1293, EpochPlan(7, 13)),
        ({"pretrain": {"iterations": 20}}, 1293, EpochPlan(20, 0)),
        ({"main_train": {"iterations": 5}}, 1293, EpochPlan(2, 5)),
        ({"main_train": {"iterations": 0}}, 1293, EpochPlan(2, 0)),
        ({"pretrain": {"iterations": 3}, "main_train": {"iterations": 17}}, 1293, EpochPlan(3, 17)),
    ],
)
def test_plan_of_an_epoch(changes, samples, plan):
    assert plan_epoch(spec(**changes), samples) == plan


@given(
    samples=st.integers(1, 10**7),
    batch=st.integers(1, 2**20),
    alpha=st.none() | st.integers(1, 10**4),
    beta=st.none() | st.integers(0, 10**4),
)
def test_an_epoch_is_at_most_one_pass_over_the_training_set(samples, batch, alpha, beta):
    job = spec(global_batch_size=batch, pretrain={"iterations": alpha}, main_train={"iterations": beta})
    iterations = samples // batch
    if iterations == 0 or (alpha or max(1, round(0.08 * iterations))) + (beta or 0) > iterations:
        assert len(refusal(plan_epoch, job, samples)) == 1
        return
    plan = plan_epoch(job, samples)
    assert iterations_per_epoch(job, samples) == iterations
    assert iterations * batch <= samples < (iterations + 1) * batch
    assert plan.pretrain_iterations >= 1
    assert plan.main_train_iterations >= 0
    assert plan.pretrain_iterations + plan.main_train_iterations <= iterations
    if beta is None:  # the whole of it
        assert plan.pretrain_iterations + plan.main_train_iterations == iterations


def test_a_batch_larger_than_the_training_set():
    assert refusal(plan_epoch, spec(global_batch_size=128), 127) == [
        FieldError(
            "global_batch_size",
            128,
            "the training set has 127 samples, less than one batch; choose a smaller batch",
        )
    ]


@pytest.mark.parametrize(
    ("changes", "field", "value", "numbers"),
    [
        ({"pretrain": {"iterations": 21}}, "pretrain.iterations", 21, "Pre-train (21) and Main-train (0)"),
        ({"main_train": {"iterations": 19}}, "main_train.iterations", 19, "Pre-train (2) and Main-train (19)"),
        (
            {"pretrain": {"iterations": 4}, "main_train": {"iterations": 17}},
            "main_train.iterations",
            17,
            "Pre-train (4) and Main-train (17)",
        ),
    ],
)
def test_more_than_one_epoch(changes, field, value, numbers):
    message = f"{numbers} may take one epoch at most, which is 20 iterations (1293 samples / batch 64); lower one"
    assert refusal(plan_epoch, spec(**changes), 1293) == [FieldError(f"methods[0].{field}", value, message)]


@pytest.mark.parametrize(
    ("samples", "fraction", "sizes"),
    [(1437, 0.1, (1293, 144)), (60_000, 0.1, (54_000, 6_000)), (10, 0.001, (9, 1)), (3, 0.5, (1, 2)), (1, 0.5, (0, 1))],
)
def test_split_sizes(samples, fraction, sizes):
    assert split_sizes(samples, fraction) == sizes


@pytest.mark.parametrize(
    ("dataset", "samples"),
    [
        ("digits", 1293),
        ("mnist", 54_000),
        ({"name": "fashion-mnist", "validation_fraction": 0.5}, 30_000),
        ("cifar10", 45_000),
        ({"name": "cifar10", "train_samples": 2_000}, 2_000),
        ("tiny-imagenet", 90_000),
        ({"name": "image-folder", "path": "birds"}, None),
    ],
)
def test_training_samples_known_beforehand(dataset, samples):
    assert known_train_samples(spec(dataset=dataset)) == samples


# --- across fields ---------------------------------------------------------------------------------

PHASE = {"first_epoch": 3, "lr_set": "narrow"}

REPLAY = {"name": "replay", "schedule": {"learning_rates": [0.1, 0.2]}}
ACROSS = [
    (
        {"global_batch_size": 65, "workers": 2},
        FieldError(
            "global_batch_size", 65, "must be a multiple of workers (2), so that every worker takes the same share"
        ),
    ),
    (
        {"epochs": 3, "warmup": {"epochs": 4}},
        FieldError(
            "methods[0].warmup.epochs", 4, "longer than the whole training (3 epochs); lower it or raise epochs"
        ),
    ),
    (
        {"epochs": 10, "warmup": {"epochs": None}, "lr_set": {"phases": [PHASE]}},  # one epoch of warm-up
        FieldError("lr_set.phases[0].first_epoch", 3, "epochs 2 to 2 have no set; begin at 2"),
    ),
    (
        {"warmup": {"epochs": 0}, "lr_set": {"phases": [PHASE]}},
        FieldError("lr_set.phases[0].first_epoch", 3, "epochs 1 to 2 have no set; begin at 1"),
    ),
    (
        {"methods": ["stpt", REPLAY]},
        FieldError("methods[1].schedule.learning_rates", 2, "has 2 epochs, the job 10; set epochs to 2"),
    ),
    (
        {"pretrain": {"placement": "sequential", "batch": "per_worker"}},
        FieldError(
            "methods[0].pretrain.batch",
            "per_worker",
            "a sequential branch runs on all workers, its batch is the global one; use 'global', or placement 'split'",
        ),
    ),
    (
        {"global_batch_size": 1294},
        FieldError(
            "global_batch_size", 1294, "the training set has 1293 samples, less than one batch; choose a smaller batch"
        ),
    ),
]


@pytest.mark.parametrize(("changes", "error"), ACROSS, ids=[error.field for _, error in ACROSS])
def test_rules_across_fields(changes, error):
    assert refusal(check_across_fields, spec(**changes)) == [error]


@pytest.mark.parametrize(
    "changes",
    [
        {"global_batch_size": 64, "workers": 64},
        {"epochs": 3, "warmup": {"epochs": 3}},
        {"warmup": {"epochs": 2}, "lr_set": {"phases": [PHASE]}},
        {"warmup": {"epochs": 5}, "lr_set": {"phases": [PHASE]}},
        {"pretrain": {"placement": "split", "batch": "per_worker"}},
        {"pretrain": {"placement": "sequential", "batch": "global"}},
        {"global_batch_size": 1293},
        {"pretrain": {"iterations": 20}},
        {"dataset": {"name": "image-folder", "path": "birds"}, "global_batch_size": 2**20},  # size not known yet
    ],
)
def test_the_last_that_is_allowed(changes):
    check_across_fields(spec(**changes))


def test_every_wrong_field_is_named_at_once():
    job = spec(
        global_batch_size=2001,
        workers=2,
        warmup={"epochs": 11},
        pretrain={"placement": "sequential", "batch": "per_worker"},
        lr_set={"phases": [{"first_epoch": 13, "lr_set": "mix"}]},
    )
    fields = [error.field for error in refusal(check_across_fields, job)]
    assert fields == [
        "global_batch_size",
        "methods[0].warmup.epochs",
        "methods[0].pretrain.batch",
        "lr_set.phases[0].first_epoch",
        "global_batch_size",
    ]


STAGES = {
    "warmup": {"epochs": 1},
    "epochs": 4,
    "lr_set": {"stages": [{"factors": [10, 1], "pretrain_share": 1}, {"factors": [2, 0.5]}]},
}


def test_a_stage_may_take_another_share_of_its_epoch():
    job = spec(**STAGES)
    [method] = job.methods
    assert [method.pretrain_iterations(job, method.epoch_plan(20), epoch) for epoch in (2, 3, 4)] == [20, 2, 2]


# --- the method `fixed` --------------------------------------------------------------------------------


def by_schedule(**method):
    return {"methods": ["stpt", {"name": "fixed", **method}]}


MOMENTUM = {"rule": "linear", "base_batch_size": 64, "momentum": True}


@pytest.mark.parametrize(
    ("changes", "field", "value", "message"),
    [
        (
            by_schedule(warmup={"kind": "linear", "epochs": 11}),
            "warmup.epochs",
            11,
            "longer than the whole training (10 epochs); lower it or raise epochs",
        ),
        (
            by_schedule(scaling=MOMENTUM) | {"optimizer": "adam"},
            "scaling.momentum",
            True,
            "adam has no momentum to scale; take sgd, lars or tvlars, or scale the learning rate (false)",
        ),
        (
            by_schedule(scaling=MOMENTUM) | {"global_batch_size": 4},
            "scaling.momentum",
            True,
            "momentum 0.9 cannot follow a factor of 0.0625: 1 - (1 - 0.9) / 0.0625 = -0.6 is below 0; the factor must "
            "be at least 0.1",
        ),
        (
            by_schedule(scaling=MOMENTUM)
            | {"global_batch_size": 32, "optimizer": {"name": "sgd", "momentum": 0.5, "nesterov": True}},
            "scaling.momentum",
            True,
            "nesterov needs a momentum above 0; set one, or leave nesterov out",
        ),
        (
            by_schedule(learning_rate=1e6, scaling=MOMENTUM | {"momentum": False}) | {"global_batch_size": 128},
            "scaling.rule",
            "linear",
            "the scaled learning rate is 2e+06; it must be above 0 and at most 1e6",
        ),
        (
            by_schedule(warmup={"kind": "gradual", "epochs": 2}),
            "warmup.kind",
            "gradual",
            "leads from the learning rate before scaling to the scaled one, and none is scaled; give scaling, of the "
            "learning rate, or kind linear",
        ),
        (
            by_schedule(warmup={"kind": "constant", "epochs": 2}, scaling=MOMENTUM) | {"global_batch_size": 128},
            "warmup.kind",
            "constant",
            "leads from the learning rate before scaling to the scaled one, and none is scaled; give scaling, of the "
            "learning rate, or kind linear",
        ),
    ],
)
def test_schedules_that_cannot_be(changes, field, value, message):
    [error] = refusal(check_across_fields, spec(**changes))
    assert error == FieldError(f"methods[1].{field}", value, message)


def test_a_schedule_that_can_be():
    check_across_fields(spec(**by_schedule(scaling=MOMENTUM, warmup={"kind": "linear", "epochs": 10})))
    # of the base batch, where a study has it too
    scaling = {"rule": "linear", "base_batch_size": 64}
    check_across_fields(spec(**by_schedule(scaling=scaling, warmup={"kind": "gradual", "epochs": 10})))


SCALED_SEARCH = {"name": "stpt", "scaling": {"rule": "linear", "base_batch_size": 64}}


@pytest.mark.parametrize(
    ("changes", "field", "value", "message"),
    [
        (
            {"methods": [SCALED_SEARCH], "lr_set": {"learning_rates": [0.1, 0.2]}},
            "methods[0].scaling.rule",
            "linear",
            "the learning rates of lr_set are absolute; leave scaling out, or give lr_set factors",
        ),
        (
            {"methods": [SCALED_SEARCH], "lr_set": {"from_history": True}},
            "methods[0].scaling.rule",
            "linear",
            "the learning rates of lr_set of the history are for this batch already; leave scaling out, or give "
            "lr_set factors",
        ),
        (
            {"methods": [{"name": "stpt", "scaling": MOMENTUM}], "optimizer": "adam"},
            "methods[0].scaling.momentum",
            True,
            "adam has no momentum to scale; take sgd, lars or tvlars, or scale the learning rate (false)",
        ),
        (
            {"optimizer": {"name": "tvlars", "minimum": 0.1, "base_batch_size": 256}},
            "optimizer.base_batch_size",
            256,
            "is for a minimum by the batch, which minimum leaves none; leave one of them out",
        ),
        (
            {"optimizer": {"name": "tvlars", "variant": "reference_code", "base_batch_size": 256}},
            "optimizer.base_batch_size",
            256,
            "is for a minimum by the batch, which variant reference_code leaves none; leave one of them out",
        ),
        (
            {"methods": ["tpe"], "telemetry": {"every": 7}},
            "telemetry.every",
            7,
            "trials of searches and studies have none; leave it out, or add a training to methods, such as stpt",
        ),
    ],
)
def test_what_would_come_to_nothing_is_refused(changes, field, value, message):
    assert refusal(check_across_fields, spec(**changes)) == [FieldError(field, value, message)]


def test_what_some_method_of_the_job_takes_is_not():
    check_across_fields(spec(methods=["tpe", "cosine"], telemetry={"every": 7}))
    absolute = {"learning_rates": [0.1, 0.2]}  # the momentum follows, and they need not
    check_across_fields(spec(methods=[{"name": "stpt", "scaling": MOMENTUM}], lr_set=absolute))
    check_across_fields(spec(optimizer={"name": "tvlars", "base_batch_size": 256}))
