import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import FieldError, InvalidInput
from service.plan import (
    Cost,
    EpochPlan,
    check_across_fields,
    forecast,
    known_train_samples,
    plan_epoch,
    pretrain_iterations,
    search_area,
    split_sizes,
)
from service.spec import JobSpec
from tests.unit.service.specs import small


def spec(**changes) -> JobSpec:
    return JobSpec.model_validate(small(**changes))


def refusal(call, *args) -> list[FieldError]:
    with pytest.raises(InvalidInput) as caught:
        call(*args)
    return list(caught.value.errors)


# --- the epoch -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "samples", "plan"),
    [
        # S1: 1,280,000 images, batch 512: 2500 iterations, alpha 200
        ({"global_batch_size": 512, "workers": 8}, 1_280_000, EpochPlan(2500, 200, 2300)),
        ({}, 1293, EpochPlan(20, 2, 18)),  # digits; 8 % of 20 is 1.6
        ({"global_batch_size": 1}, 50, EpochPlan(50, 4, 46)),
        ({"global_batch_size": 10}, 69, EpochPlan(6, 1, 5)),  # 0.48, but at least 1
        ({"global_batch_size": 64}, 64, EpochPlan(1, 1, 0)),  # a single batch
        ({"global_batch_size": 64}, 127, EpochPlan(1, 1, 0)),  # the incomplete batch is left out
        ({"pretrain": {"iterations": 7}}, 1293, EpochPlan(20, 7, 13)),
        ({"pretrain": {"iterations": 20}}, 1293, EpochPlan(20, 20, 0)),
        ({"main_train": {"iterations": 5}}, 1293, EpochPlan(20, 2, 5)),
        ({"main_train": {"iterations": 0}}, 1293, EpochPlan(20, 2, 0)),
        ({"pretrain": {"iterations": 3}, "main_train": {"iterations": 17}}, 1293, EpochPlan(20, 3, 17)),
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
    assert plan.iterations_per_epoch * batch <= samples < (plan.iterations_per_epoch + 1) * batch
    assert plan.pretrain_iterations >= 1
    assert plan.main_train_iterations >= 0
    assert plan.pretrain_iterations + plan.main_train_iterations <= plan.iterations_per_epoch
    if beta is None:  # the whole of it
        assert plan.pretrain_iterations + plan.main_train_iterations == plan.iterations_per_epoch


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
    assert refusal(plan_epoch, spec(**changes), 1293) == [FieldError(field, value, message)]


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
        FieldError("warmup.epochs", 4, "longer than the whole training (3 epochs); lower it or raise epochs"),
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
            "pretrain.batch",
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
    (
        {"pretrain": {"iterations": 21}},
        FieldError(
            "pretrain.iterations",
            21,
            "Pre-train (21) and Main-train (0) may take one epoch at most, which is 20 iterations "
            "(1293 samples / batch 64); lower one",
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
        "warmup.epochs",
        "lr_set.phases[0].first_epoch",
        "pretrain.batch",
        "global_batch_size",
    ]


# --- forecast ----------------------------------------------------------------------------------------

PAPER = {"preset": "stpt-paper", "dataset": {"name": "image-folder", "path": "imagenet"}}
THREE = ["stpt", "sweep", "reference"]


def test_the_paper_saves_seven_eighths():
    """S1, Fig. 4: 8 candidates on 8 workers; an epoch is (alpha + beta) * B samples, a sweep takes 8 trainings."""
    job = JobSpec.model_validate(PAPER | {"methods": THREE})
    stpt, sweep, reference = forecast(job, 1_280_000)
    assert stpt == Cost("stpt", 1, 40 * (200 + 2300) * 512, 100_000, 0.125)
    assert sweep == Cost("sweep", 8, 8 * 51_200_000, 800_000, 1.0)
    assert reference == Cost("reference", 1, 51_200_000, 100_000, 0.125)


def test_a_global_batch_for_every_branch_costs_more():
    job = JobSpec.model_validate(PAPER | {"pretrain": {"batch": "global"}})
    [stpt] = forecast(job, 1_280_000)
    # 36 epochs with 7 branches more of 200 iterations
    assert stpt == Cost("stpt", 1, 51_200_000 + 36 * 7 * 200 * 512, 150_400, 0.188)


@pytest.mark.parametrize(
    ("rates", "workers", "changes", "an_epoch"),
    [
        (5, 1, {}, (5 * 2 + 18) * 64),
        (3, 4, {}, (3 * 2 + 18) * 64),
        (1, 4, {}, 20 * 64),
        (5, 1, {"main_train": {"iterations": 4}}, (5 * 2 + 4) * 64),
        # of a batch of 64 each of 4 workers takes 16; the smaller group has one worker, or two
        (3, 4, {"pretrain": {"batch": "per_worker"}}, 3 * 2 * 16 + 18 * 64),
        (2, 4, {"pretrain": {"batch": "per_worker"}}, 2 * 2 * 32 + 18 * 64),
        (8, 4, {"pretrain": {"batch": "per_worker"}}, 8 * 2 * 16 + 18 * 64),
    ],
)
def test_samples_of_an_epoch_on_digits(rates, workers, changes, an_epoch):
    learning_rates = [0.01 * number for number in range(1, rates + 1)]
    job = spec(lr_set={"learning_rates": learning_rates}, workers=workers, epochs=3, warmup={"epochs": 1}, **changes)
    plan = plan_epoch(job, 1293)
    [stpt] = forecast(job, 1293)
    assert stpt.samples == plan.iterations * 64 + 2 * an_epoch  # one epoch is warm-up
    assert stpt.relative_to_sweep == stpt.samples / (rates * 3 * plan.iterations * 64)


def test_a_sweep_of_its_own_learning_rates_and_a_job_without_search():
    sweep = {"name": "sweep", "learning_rates": [0.1, 0.01]}
    [cost] = forecast(spec(lr_set="narrow", epochs=3, methods=[sweep]), 1293)
    assert cost == Cost("sweep", 2, 2 * 3 * 20 * 64, 120, 0.25)  # of 8 candidates
    [cost] = forecast(spec(lr_set="narrow", epochs=3, warmup={"epochs": 3}, methods=["reference"]), 1293)
    assert cost == Cost("reference", 1, 3 * 20 * 64, 60, 1.0)


def area(**changes) -> dict[int, tuple[float, float]]:
    found = search_area(spec(**changes))
    return {bounds.epoch: (float(f"{bounds.low:.9g}"), float(f"{bounds.high:.9g}")) for bounds in found}


def test_the_search_area_of_narrow():
    """S1, Fig. 9: 0.8 and 1.25 times the learning rate each epoch, 1.0 at most."""
    found = area(lr_set="narrow", epochs=40, warmup={"epochs": 4})
    assert list(found) == list(range(5, 41))
    assert found[5] == (0.08, 0.125)
    assert found[6] == (0.064, 0.15625)
    assert found[14] == (0.0107374182, 0.931322575)
    assert found[15] == (0.00858993459, 1.0)
    assert found[40][1] == 1.0


def test_the_search_area_of_mix():
    # of 8 epochs one is warm-up, 2 to 4 are narrow, 5 and 6 middle, 7 and 8 wide
    assert area(lr_set="mix", epochs=8, warmup={"epochs": 1}) == {
        2: (0.08, 0.125),
        3: (0.064, 0.15625),
        4: (0.0512, 0.1953125),
        5: (0.02048, 0.48828125),
        6: (0.008192, 1.0),
        7: (0.0016384, 1.0),
        8: (0.00032768, 1.0),
    }


def test_the_search_area_of_an_absolute_set_is_always_the_same():
    found = area(lr_set={"learning_rates": [0.3, 0.01, 0.1]}, epochs=3, warmup={"epochs": 1})
    assert found == {2: (0.01, 0.3), 3: (0.01, 0.3)}


# --- stages ------------------------------------------------------------------------------------------

STAGES = {
    "warmup": {"epochs": 1},
    "epochs": 4,
    "lr_set": {"stages": [{"factors": [10, 1], "pretrain_share": 1}, {"factors": [2, 0.5]}]},
}


def test_a_stage_may_take_another_share_of_its_epoch():
    job = spec(**STAGES)
    plan = plan_epoch(job, 1293)
    assert [pretrain_iterations(job, plan, epoch) for epoch in (2, 3, 4)] == [20, 2, 2]


def test_what_stages_cost():
    # warm-up, two whole epochs, two branches of 2 iterations and 18 more, an epoch of a single learning rate
    [cost] = forecast(spec(**STAGES), 1293)
    assert cost == Cost("stpt", 1, (20 + 40 + 22 + 20) * 64, 102, 0.6375)


def test_behind_the_stages_the_search_area_stays():
    assert area(**STAGES) == {2: (0.1, 1.0), 3: (0.05, 2.0), 4: (0.05, 2.0)}
