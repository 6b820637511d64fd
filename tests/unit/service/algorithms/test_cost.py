"""What a job will take, before anything starts; expected numbers from the iterations, by hand."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.candidates import Rule, epoch_candidates
from service.algorithms.cost import Cost, forecast, search_area
from service.spec.job import JobSpec
from service.spec.methods.stpt import EpochPlan, StptMethod
from tests.builders import nested
from tests.unit.service.specs import small


def spec(**changes) -> JobSpec:
    return JobSpec.model_validate(small(**changes))


def cost(method, trainings, samples, iterations, relative_to_sweep) -> Cost:
    """Without what is known of its Pre-trains, which has tests of its own."""
    return Cost(method, method, trainings, samples, iterations, relative_to_sweep)


def costs(job, train_samples) -> list[Cost]:
    return [replace(one, plan=None, search_area=()) for one in forecast(job, train_samples)]


PAPER = {"preset": "stpt-paper", "dataset": {"name": "image-folder", "path": "imagenet"}}
THREE = ["stpt", "sweep", "reference"]


def test_the_paper_saves_seven_eighths():
    """Yamada et al., Fig. 4: 8 candidates on 8 workers; an epoch is (alpha + beta) * B samples, a sweep 8 trainings."""
    job = JobSpec.model_validate(PAPER | {"methods": THREE})
    stpt, sweep, reference = costs(job, 1_280_000)
    assert stpt == cost("stpt", 1, 40 * (200 + 2300) * 512, 100_000, 0.125)
    assert sweep == cost("sweep", 8, 8 * 51_200_000, 800_000, 1.0)
    assert reference == cost("reference", 1, 51_200_000, 100_000, 0.125)


def test_a_global_batch_for_every_branch_costs_more():
    job = JobSpec.model_validate(nested(**PAPER, pretrain={"batch": "global"}))
    [stpt] = costs(job, 1_280_000)
    # 36 epochs with 7 branches more of 200 iterations
    assert stpt == cost("stpt", 1, 51_200_000 + 36 * 7 * 200 * 512, 150_400, 0.188)


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
    [method] = job.methods
    plan = method.epoch_plan(20)
    [stpt] = costs(job, 1293)
    assert stpt.samples == plan.iterations * 64 + 2 * an_epoch  # one epoch is warm-up
    assert stpt.relative_to_sweep == stpt.samples / (rates * 3 * 20 * 64)


def test_a_sweep_of_its_own_learning_rates_and_a_job_without_search():
    sweep = {"name": "sweep", "learning_rates": [0.1, 0.01]}
    [found] = costs(spec(lr_set="narrow", epochs=3, methods=[sweep]), 1293)
    assert found == cost("sweep", 2, 2 * 3 * 20 * 64, 120, 0.25)  # of 8 candidates
    [found] = costs(spec(lr_set="narrow", epochs=3, methods=["reference"]), 1293)
    assert found == cost("reference", 1, 3 * 20 * 64, 60, 0.125)


def area(**changes) -> dict[int, tuple[float, float]]:
    found = search_area(job := spec(**changes), *job.methods_of(StptMethod))
    return {bounds.epoch: (float(f"{bounds.low:.9g}"), float(f"{bounds.high:.9g}")) for bounds in found}


def test_the_search_area_of_narrow():
    """Yamada et al., Fig. 9: 0.8 and 1.25 times the learning rate each epoch, 1.0 at most."""
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


def test_the_search_area_at_a_batch_that_the_learning_rate_is_scaled_to():
    """0.1 at batch 64 is 0.2 at 256, by the square root."""
    scaling = {"rule": "sqrt", "base_batch_size": 64}
    found = area(lr_set="narrow", epochs=1, global_batch_size=256, methods=[{"name": "stpt", "scaling": scaling}])
    assert found == {1: (0.16, 0.25)}


# --- stages ------------------------------------------------------------------------------------------

STAGES = {
    "warmup": {"epochs": 1},
    "epochs": 4,
    "lr_set": {"stages": [{"factors": [10, 1], "pretrain_share": 1}, {"factors": [2, 0.5]}]},
}


def test_what_stages_cost():
    # warm-up, two whole epochs, two branches of 2 iterations and 18 more, an epoch of a single learning rate
    [found] = costs(spec(**STAGES), 1293)
    assert found == cost("stpt", 1, (20 + 40 + 22 + 20) * 64, 102, 0.6375)


def test_behind_the_stages_the_search_area_stays():
    assert area(**STAGES) == {2: (0.1, 1.0), 3: (0.05, 2.0), 4: (0.05, 2.0)}


# --- races -------------------------------------------------------------------------------------------

RACE = {"lr_set": {"kind": "race"}}  # 10 epochs of 20 iterations


def test_a_race_without_a_budget_comes_on_top():
    """A quarter of 200 iterations has room for 7 looks of 1, 4 of 3 and two finalists' 15 more: 49."""
    [found] = costs(spec(**RACE), 1293)
    assert found == cost("stpt", 1, 249 * 64, 249, 0.249)  # of five trainings
    [found] = costs(spec(**RACE, seeds=3), 1293)
    assert (found.trainings, found.samples) == (3, 3 * 249 * 64)


@pytest.mark.parametrize(
    ("budget", "iterations"),
    [
        ({"epochs": 15}, 45 + 13 * 19),  # 15 % of 300: 7 x 1 + 4 x 3 + 2 x 13
        ({"samples": 300 * 64 + 63}, 45 + 13 * 19),
        ({"epochs": 10.5}, 31 + 9 * 19),  # of 210: 7 x 1 + 4 x 3 + 2 x 6
        ({"epochs": 4}, 80),  # no room for a race
        ({"epochs": 1}, 20),
    ],
)
def test_a_race_within_a_budget(budget, iterations):
    [found] = costs(spec(**RACE, budget=budget), 1293)
    assert (found.trainings, found.iterations, found.samples) == (1, iterations, iterations * 64)


def test_a_race_within_what_another_run_takes_and_one_that_others_go_by():
    """The paper's rule takes 10 x (8 x 2 + 18) = 340 iterations. Of those 7 + 12 + 32 = 51 are a race, 285 training."""
    methods = ["stpt", {"name": "stpt", "label": "paper", "lr_set": "middle"}, "cosine"]
    raced, paper, cosine = costs(spec(**RACE, methods=methods, budget={"relative_to": "paper"}), 1293)
    assert (raced.iterations, paper.iterations, cosine.iterations) == (51 + 15 * 19, 340, 340)
    raced, paper, cosine = costs(spec(**RACE, methods=methods, budget={"relative_to": "stpt"}), 1293)
    # 249 are 7 epochs of 34 for the paper's rule: 8 of 31, and so 17 of training, are less
    assert (raced.iterations, paper.iterations, cosine.iterations) == (249, 238, 240)


def test_a_race_in_a_study_comes_on_top_whatever_the_budget():
    study = {"name": "study", "batch_sizes": [64], "variants": [{"name": "raced", "method": "stpt"}]}
    [found] = costs(spec(**RACE, methods=[study], budget={"epochs": 2}), 1293)
    assert (found.trainings, found.iterations) == (1, 249)


def test_epochs_behind_a_race_are_planned_at_their_length():
    [on_top] = forecast(spec(**RACE), 1293)
    assert on_top.plan == EpochPlan(2, 18)
    assert len(on_top.search_area) == 10
    [within] = forecast(spec(**RACE, budget={"epochs": 15}), 1293)
    assert within.plan == EpochPlan(2, 17)
    assert [area.epoch for area in within.search_area] == list(range(1, 14))


@pytest.mark.parametrize(
    ("changes", "bounds"),
    [
        # 0.01 to 1, ten times beyond either end twice, then with SGD down to 10^-1.5 of that
        ({}, (3.16227766e-06, 100.0)),
        ({"lr_set": {"kind": "race", "max_learning_rate": 2.0}}, (3.16227766e-06, 2.0)),
        # with Adam half a step down, and one up
        ({"optimizer": {"name": "adamw"}}, (5.62341325e-05, 316.227766)),
        ({"optimizer": {"name": "adamw"}, "initial_learning_rate": 1e-3}, (5.62341325e-07, 3.16227766)),
    ],
)
def test_the_search_area_of_a_race_has_its_probes_and_its_window(changes, bounds):
    assert area(**RACE | changes) == dict.fromkeys(range(1, 11), bounds)


def test_without_room_for_a_race_nothing_but_the_initial_learning_rate_is_within_reach():
    [found] = forecast(spec(**RACE, budget={"epochs": 4}), 1293)
    assert [(area.low, area.high) for area in found.search_area] == [(0.1, 0.1)] * 4


# --- other sets within a budget ----------------------------------------------------------------------

PHASES = {"phases": [{"first_epoch": 1, "lr_set": "narrow"}, {"first_epoch": 4, "lr_set": {"factors": [2, 1, 0.5]}}]}


@pytest.mark.parametrize(
    ("changes", "budget", "iterations"),
    [
        # 8 branches of 2 iterations, 7 of them on top: 34 an epoch
        ({"lr_set": "middle"}, {"epochs": 17}, 10 * 34),
        ({"lr_set": "middle"}, {"samples": 373 * 64 + 63}, 11 * 33),  # trains 11 x 19, more than 10 x 20
        ({"lr_set": "mix", "warmup": {"epochs": None}}, {"epochs": 17}, 10 * 20 + 9 * 14),
        ({"lr_set": "mix", "warmup": {"epochs": 2}}, {"epochs": 17}, 11 * 19 + 9 * 14),
        ({"lr_set": {"learning_rates": [0.1, 0.1, 0.05]}}, {"epochs": 11}, 10 * 22),
        # 3 epochs with 8 candidates, 7 with 3
        ({"lr_set": PHASES}, {"epochs": 13}, 10 * 19 + 3 * 14 + 7 * 4),
        # 5 whole epochs, one with 2 x 2 iterations on top, then without search
        (
            {"lr_set": {"stages": [{"factors": [9, 3, 1, 0.3, 0.1], "pretrain_share": 1}, {"factors": [2, 1, 0.5]}]}},
            {"epochs": 14},
            5 * 19 + 23 + 8 * 19,
        ),
        ({"lr_set": "middle", "main_train": {"iterations": 4}}, {"epochs": 10}, 10 * 20),
        ({"lr_set": {"factors": [1.0]}}, {"epochs": 10.5}, 11 * 19),
    ],
)
def test_other_sets_within_a_budget(changes, budget, iterations):
    [found] = costs(spec(**changes, budget=budget), 1293)
    assert (found.trainings, found.iterations, found.samples) == (1, iterations, iterations * 64)


# --- beside stpt ---------------------------------------------------------------------------------------

EPOCH = 20 * 64  # 1293 samples in batches of 64: 20 iterations
BESIDE = {"epochs": 10, "lr_set": {"learning_rates": [0.1, 0.05, 0.02, 0.01]}}


@pytest.mark.parametrize(
    ("method", "trainings", "epochs"),
    [
        ("cosine", 1, 10),
        ("linear", 1, 10),
        ("wsd", 1, 10),
        ("schedule-free", 1, 10),
        ("random", 4, 40),  # as many as the set has candidates
        ("grid", 4, 40),
        ({"name": "tpe", "max_trials": 7}, 7, 70),
        ({"name": "pbt", "population": 3}, 3, 30),
        ("hyperband", 4, 40),  # at most
    ],
)
def test_without_a_budget(method, trainings, epochs):
    [found] = costs(spec(**BESIDE, methods=[method]), 1293)
    assert found == cost(found.method, trainings, epochs * EPOCH, epochs * 20.0, epochs / 40)


@pytest.mark.parametrize(
    ("method", "trainings", "epochs"),
    [
        ("cosine", 1, 25),  # stretched
        ("linear", 1, 25),
        ("wsd", 1, 25),
        ("random", 25, 25),  # at most one epoch each
        ("grid", 2, 20),  # whole trainings
        ("pbt", 4, 24),  # four times six
        ("pb2", 4, 24),
    ],
)
def test_a_budget_is_never_exceeded(method, trainings, epochs):
    [found] = costs(spec(**BESIDE, methods=[method], budget={"epochs": 25.9}), 1293)
    assert (found.trainings, found.samples) == (trainings, epochs * EPOCH)


def test_a_budget_relative_to_stpt_and_several_seeds():
    job = spec(
        **BESIDE, pretrain={"iterations": 5}, methods=["stpt", "cosine"], budget={"relative_to": "stpt"}, seeds=3
    )
    stpt, cosine = costs(job, 1293)
    assert stpt.samples == 3 * 10 * (4 * 5 + 15) * 64
    assert (cosine.trainings, cosine.samples) == (3, 3 * 17 * EPOCH)  # 17.5 epochs


def test_a_study_costs_what_each_of_its_trials_does():
    """Digits: 1293 samples. Batch 64: 20 iterations, batch 100: 12; the search of STPT besides, 8 x 2 - 2 iterations of
    64 and 8 x 1 - 1 of 100, in each of 10 epochs."""
    variants = [{"name": "a", "method": "fixed"}, {"name": "b", "method": "stpt"}]
    study = {"name": "study", "batch_sizes": [64, 100], "variants": variants}
    job = JobSpec.model_validate(small(methods=[study], seeds=3, workers=2, pretrain={"weights": "raw"}))
    [found] = costs(job, 1293)
    plain, searched = 10 * (20 * 64 + 12 * 100), 10 * (14 * 64 + 7 * 100)
    assert (found.method, found.trainings, found.samples) == ("study", 12, 3 * (2 * plain + searched))


@pytest.mark.parametrize("method", ["lr-range-test", "autolrs", {"name": "autolrs", "trials": 3}])
def test_in_a_study_what_a_training_searches_by_comes_on_top(method):
    study = {"name": "study", "batch_sizes": [64], "variants": [{"name": "searched", "method": method}]}
    alone, studied = costs(spec(methods=[method, study]), 1293)
    assert alone.samples == studied.samples > 10 * 1280
    assert (studied.method, studied.trainings) == ("study", 1)


@pytest.mark.parametrize("changes", [STAGES, {"lr_set": "mix", "epochs": 8, "warmup": {"epochs": 1}}])
def test_a_study_of_one_point_costs_what_its_training_does(changes):
    study = {"name": "study", "batch_sizes": [64], "variants": [{"name": "searched", "method": "stpt"}]}
    stpt, studied = costs(spec(**changes, methods=["stpt", study]), 1293)
    assert (studied.trainings, studied.samples) == (1, stpt.samples)


def test_the_candidates_of_a_rule_are_counted_once_for_all_its_epochs_and_all_points_of_a_study(monkeypatch):
    counted = []

    def of_rule(rule, current):
        counted.append(rule.values)
        return candidates_of_rule(rule, current)

    candidates_of_rule = Rule.candidates
    monkeypatch.setattr(Rule, "candidates", of_rule)
    variants = [{"name": name, "method": "stpt"} for name in "abcd"]
    study = {"name": "study", "batch_sizes": [16, 32, 64], "variants": variants}
    [found] = costs(spec(methods=[study], epochs=50, lr_set="narrow"), 1293)
    assert found.trainings == 12
    # once for the job's widest Pre-train, and once for each spec's first candidates
    assert len(counted) == 1 + 1 + 12


# --- the slow obvious reference ------------------------------------------------------------------------


def slow_search_area(job, method):
    """The bounds of every epoch, each from those of the epoch before, by all its candidates."""
    first, low = method.first_pretrain(job)
    high, found = low, {}
    for epoch in range(first, job.epochs + 1):
        low = min(epoch_candidates(job, method, epoch=epoch, current=low))
        high = max(epoch_candidates(job, method, epoch=epoch, current=high))
        found[epoch] = low, high
    return found


def slow_most_branches(job):
    [method] = job.methods
    first, start = method.first_pretrain(job)
    epochs = range(first, job.epochs + 1)
    return max((len(epoch_candidates(job, method, epoch=epoch, current=start)) for epoch in epochs), default=1)


FACTORS = st.lists(st.sampled_from([0.2, 0.5, 0.9, 0.9999, 1, 1.0001, 1.25, 3, 1e6]), min_size=1, max_size=6)
SIMPLE = st.one_of(
    st.builds(
        lambda factors, cap: {"factors": factors, "max_learning_rate": cap}, FACTORS, st.sampled_from([0.01, 1, 9])
    ),
    st.builds(lambda rates: {"learning_rates": rates}, st.lists(st.sampled_from([0.1, 0.2, 0.4]), min_size=1)),
    st.sampled_from(["mix", "narrow", "paper-alpha"]),
)
PHASES = st.builds(
    lambda sets, firsts: {
        "phases": [{"first_epoch": f, "lr_set": s} for f, s in zip([1, *sorted(firsts)], sets, strict=False)]
    },
    st.lists(SIMPLE, min_size=1, max_size=4),
    st.sets(st.integers(2, 60), min_size=3, max_size=3),
)
STAGED = st.builds(
    lambda all_: {"stages": [{"factors": one} for one in all_]}, st.lists(FACTORS, min_size=1, max_size=5)
)


@given(st.one_of(SIMPLE, PHASES, STAGED), st.integers(1, 60), st.integers(0, 6), st.sampled_from([1e-9, 0.1, 5.0]))
def test_a_forecast_is_what_counting_every_epoch_gives(lr_set, epochs, warmup, start):
    job = spec(lr_set=lr_set, epochs=epochs, warmup={"epochs": warmup}, initial_learning_rate=start)
    [method] = job.methods
    found = {area.epoch: (area.low, area.high) for area in search_area(job, method)}
    assert found == slow_search_area(job, method)
    [cost_of_job] = forecast(job, 1293)
    sweep = slow_most_branches(job) * epochs * EPOCH
    assert cost_of_job.relative_to_sweep == pytest.approx(cost_of_job.samples / sweep, rel=1e-12)


@pytest.mark.parametrize(
    "lr_set",
    [
        {"factors": [0.9999, 1.0003]},
        {"factors": [1e6, 1e-6], "max_learning_rate": 2},
        "mix",
        {"phases": [{"first_epoch": 1, "lr_set": "wide"}, {"first_epoch": 777, "lr_set": {"factors": [0.998, 1.1]}}]},
        {"stages": [{"factors": [2, 0.5]}] * 5},
    ],
)
def test_of_a_long_training_a_thousand_epochs_are_told_and_the_last(lr_set):
    job = spec(lr_set=lr_set, epochs=4321)
    [method] = job.methods
    areas, slow = search_area(job, method), slow_search_area(job, method)
    assert [area.epoch for area in areas] == [*range(1, 4321, 5), 4321]
    for area in areas:
        assert (area.low, area.high) == pytest.approx(slow[area.epoch], rel=1e-9)


# --- what one request may cost -------------------------------------------------------------------------

F64 = [1 + place / 100 for place in range(64)]
MANY_PHASES = {"phases": [{"first_epoch": 1 + 10 * place, "lr_set": {"factors": F64}} for place in range(64)]}
RUNS = [{"name": "stpt", "label": f"run-{number}"} for number in range(32)]


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"lr_set": {"factors": F64}}, 0.3),  # 24 s when every epoch was counted
        ({"lr_set": MANY_PHASES, "methods": RUNS, "budget": {"samples": 10**12}}, 5),
        ({"methods": [{"name": "autolrs", "stage_iterations": 1, "max_stage_iterations": 1}]}, 0.3),
        ({"methods": ["grid", "random", "hyperband"], "budget": {"samples": 10**15}}, 0.3),  # an endless loop
    ],
)
def test_the_longest_trainings_are_forecast_in_no_time(changes, most):
    job = JobSpec.model_validate({"model": "lenet5", "dataset": "digits", "epochs": 100_000} | changes)
    begun = time.process_time()
    found = forecast(job, 1293)
    assert time.process_time() - begun < most
    assert len(found) == len(job.methods)
    assert all(len(run.search_area) <= 1001 for run in found)
