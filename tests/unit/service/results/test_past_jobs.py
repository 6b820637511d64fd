import math

import pytest

from service.algorithms.candidates import first_candidates
from service.algorithms.selectors import BranchResult
from service.errors import InvalidInput, NotFound, StateConflict
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.submit import submit_job
from service.results import of_jobs, past_jobs, schedule_replay
from service.spec.job import JobSpec
from service.spec.methods.base import Schedule
from service.store import jobs as stored_jobs
from service.store.engine import Store
from service.store.jobs import get_job
from service.wire.worker import Outcome, TrialRecord
from tests.builders import spec_document, train
from tests.unit.service.reports import branch, epoch, scheduled_epoch, warmup_epoch

pytest_plugins = ["tests.databases"]


def stpt_epoch(number: int, learning_rate: float, **changes):
    """Of 22 iterations an epoch: two branches of 2 iterations, then 20."""
    chosen = branch(2, learning_rate=learning_rate, state="chosen", metric=0.6)
    values = {"learning_rate": learning_rate, "iterations": 2 * 2 + 20, "branches": [branch(1), chosen]}
    return epoch(number, **values | changes)


STPT = [warmup_epoch(1, iterations=22), stpt_epoch(2, 0.2), stpt_epoch(3, 0.05)]


def schedule(store: Store, job_id: str, **which) -> tuple[Schedule, int]:
    with store.read() as session:
        found = schedule_replay.schedule(session, job_id, **which)
    return found.schedule, found.iterations_per_epoch


def trial_of_search(method: str, config: dict, state: str = "running") -> TrialRecord:
    return TrialRecord(label=method, trial=1, key="a1", seed=0, config=config, epochs=2, state=state)


def test_the_schedules_of_baselines(sqlite_store):
    methods = [
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
        "polling",
        "fixed",
        {"name": "tpe", "lr_schedule": "cosine"},
        "pbt",
        "asha",
    ]
    job_id, token = train(sqlite_store, [], methods=methods, lr_schedule="linear", epochs=2)
    for method, config in (("tpe", {}), ("pbt", {"lr_schedule": "constant"}), ("asha", {})):
        reports.record_trial(sqlite_store, job_id, token, trial_of_search(method, config))
    recorded = {
        "cosine": (0.2, 0.2), "linear": (0.2, 0.2), "one-cycle": (0.2, 0.2), "tpe": (0.3, 0.3), "pbt": (0.1, 0.4),
    }  # fmt: skip
    for method, rates in recorded.items():
        for number, rate in enumerate(rates, start=1):
            record = scheduled_epoch(number, label=method, learning_rate=rate)
            reports.record_epoch(sqlite_store, job_id, token, record)
    made = {method: schedule(sqlite_store, job_id, label=method)[0] for method in ("cosine", "linear", "tpe", "pbt")}
    assert made == {
        "cosine": Schedule(learning_rates=[0.2, 0.2], lr_schedule="cosine"),
        "linear": Schedule(learning_rates=[0.2, 0.2], lr_schedule="linear"),
        "tpe": Schedule(learning_rates=[0.3, 0.3], lr_schedule="cosine"),
        "pbt": Schedule(learning_rates=[0.1, 0.4], lr_schedule="constant"),
    }
    for method in (
        "wsd",
        "one-cycle",
        "schedule-free",
        "prodigy",
        "prodigy-schedule-free",
        "dog",
        "d-adaptation",
        "mechanic",
        "polling",
        "fixed",
    ):
        with pytest.raises(StateConflict, match="cannot be told by one learning rate an epoch"):
            schedule(sqlite_store, job_id, label=method)
    with pytest.raises(StateConflict, match="has 0 of 2 epochs of asha 1 recorded"):
        schedule(sqlite_store, job_id, label="asha")
    with pytest.raises(NotFound):
        schedule(sqlite_store, job_id, label="tpe", trial=2)
    with pytest.raises(NotFound, match="has no trial 1 of ; it has cosine"):  # no label is another than none
        schedule(sqlite_store, job_id, label="")


@pytest.mark.parametrize(("config", "iterations"), [({}, 26), ({"range_test": {"iterations": 20}}, 6)])
def test_the_schedule_behind_a_range_test_is_the_trainings_alone(sqlite_store, config, iterations):
    """One epoch of 6 iterations, which 20 of the test precede; under 1cycle a learning rate an epoch tells nothing."""
    methods = [
        {"name": "lr-range-test", "lr_schedule": "linear", "iterations": 20},
        {"name": "lr-range-test", "label": "cycle", "iterations": 20},
    ]
    job_id, token = train(sqlite_store, [], methods=methods, epochs=1)
    chosen = TrialRecord(label="lr-range-test", trial=1, seed=0, config=config, epochs=1, state="running")
    reports.record_trial(sqlite_store, job_id, token, chosen)
    record = scheduled_epoch(1, label="lr-range-test", learning_rate=0.2, iterations=26)
    reports.record_epoch(sqlite_store, job_id, token, record)
    expected = Schedule(learning_rates=[0.2], lr_schedule="linear"), iterations
    assert schedule(sqlite_store, job_id, label="lr-range-test") == expected
    with pytest.raises(StateConflict, match="cannot be told by one learning rate an epoch"):
        schedule(sqlite_store, job_id, label="cycle")


def test_the_schedule_behind_trials_is_the_trainings_alone(sqlite_store):
    """Ten trials of two iterations come to nothing, the epoch of 6 iterations begins where they did."""
    job_id, token = train(sqlite_store, [], methods=["autolrs"], epochs=1)
    branches = [branch(number, learning_rate=0.1 * number) for number in range(1, 11)]
    branches[1] = branch(2, learning_rate=0.2, state="chosen")
    record = epoch(1, label="autolrs", learning_rate=0.2, iterations=26, branches=branches)
    reports.record_epoch(sqlite_store, job_id, token, record)
    expected = Schedule(learning_rates=[0.2], rescale_momentum=False), 6
    assert schedule(sqlite_store, job_id, label="autolrs") == expected


def test_the_schedule_of_each_method(sqlite_store):
    replayed = {"learning_rates": [0.1, 0.3, 0.2], "lr_schedule": "cosine", "warmup_epochs": 1}
    methods = [
        "stpt",
        {"name": "sweep", "learning_rates": [0.4, 0.1], "lr_schedule": "cosine"},
        "reference",
        {"name": "replay", "schedule": replayed},
    ]
    records = [
        *STPT,
        *(
            scheduled_epoch(number, label="sweep", trial=trial, learning_rate=rate)
            for trial, rate in ((1, 0.4), (2, 0.1))
            for number in (1, 2, 3)
        ),
        *(
            scheduled_epoch(number, label="reference", learning_rate=rate)
            for number, rate in ((1, 0.1), (2, 0.1), (3, 0.01))
        ),
        *(
            scheduled_epoch(number, label="replay", learning_rate=rate)
            for number, rate in ((1, 0.1), (2, 0.3), (3, 0.2))
        ),
    ]
    job_id, _ = train(sqlite_store, records, methods=methods, lr_schedule="linear", warmup={"epochs": 1})
    own = Schedule(learning_rates=[0.005, 0.2, 0.05], lr_schedule="linear", warmup_epochs=1, rescale_momentum=False)
    assert schedule(sqlite_store, job_id) == schedule(sqlite_store, job_id, label="stpt") == (own, 22)
    second = Schedule(learning_rates=[0.1, 0.1, 0.1], lr_schedule="cosine")
    assert schedule(sqlite_store, job_id, label="sweep", trial=2) == (second, 22)
    reference = Schedule(learning_rates=[0.1, 0.1, 0.01])
    assert schedule(sqlite_store, job_id, label="reference") == (reference, 22)
    assert schedule(sqlite_store, job_id, label="replay")[0] == Schedule(**replayed)


@pytest.mark.parametrize(
    "last",
    [
        stpt_epoch(3, 0.05),
        stpt_epoch(3, 0.05, iterations=2 * 2 + 3 * 20, rollbacks=2),
        stpt_epoch(  # a retry: all four branches count
            3,
            0.05,
            iterations=4 * 2 + 20,
            retries=1,
            branches=[
                branch(1, state="diverged", metric=None),
                branch(2, state="diverged", metric=None),
                branch(3, retry=1),
                branch(4, retry=1, learning_rate=0.05, state="chosen"),
            ],
        ),
    ],
    ids=["plain", "rolled back", "retried"],
)
def test_the_iterations_of_an_epoch_are_those_of_one_training(sqlite_store, last):
    job_id, _ = train(sqlite_store, [*STPT[:2], last])
    assert schedule(sqlite_store, job_id)[1] == 22


def race_epoch(number: int, main_trains: int = 1):
    """Seven looks of one iteration, four of three, two finalists that go on for ten; then 20 iterations anew."""
    lengths = [1] * 7 + [3] * 4 + [10] * 2
    looks = [branch(n, iterations=length, state="eliminated") for n, length in enumerate(lengths[:11], start=1)]
    finalists = [branch(12, iterations=10, state="chosen", learning_rate=0.05), branch(13, iterations=10)]
    iterations = sum(lengths) + 20 * main_trains
    return epoch(number, branches=[*looks, *finalists], iterations=iterations, rollbacks=main_trains - 1)


@pytest.mark.parametrize("main_trains", [1, 2])
def test_the_looks_of_a_race_made_no_model(sqlite_store, main_trains):
    job_id, _ = train(sqlite_store, [race_epoch(1, main_trains)], epochs=1, lr_set={"kind": "race"})
    assert schedule(sqlite_store, job_id) == (
        Schedule(learning_rates=[0.05], warmup_share=0.2, rescale_momentum=False),
        20,
    )


def test_behind_a_race_an_epoch_is_as_any_other(sqlite_store):
    retried = [branch(1, state="diverged", metric=None), branch(2, retry=1, state="chosen", learning_rate=0.025)]
    last = epoch(2, branches=retried, iterations=2 * 2 + 18, retries=1, learning_rate=0.025)
    job_id, _ = train(sqlite_store, [race_epoch(1), last], epochs=2, lr_set={"kind": "race"})
    found, iterations = schedule(sqlite_store, job_id)
    assert (found.learning_rates, iterations) == ([0.05, 0.025], 20)


def test_the_schedule_of_a_race_within_a_budget_has_the_epochs_of_its_training(sqlite_store):
    """A warm-up of a tenth is none of three epochs and one of six."""
    changes = {"epochs": 3, "lr_set": {"kind": "race"}, "budget": {"epochs": 7}, "warmup": {"epochs": None}}
    job_id, token = train(sqlite_store, [], **changes)
    its = TrialRecord(label="stpt", trial=1, seed=0, config={}, epochs=6, state="running")
    reports.record_trial(sqlite_store, job_id, token, its)
    for record in (warmup_epoch(1, iterations=20), race_epoch(2), *(epoch(n, iterations=22) for n in range(3, 7))):
        reports.record_epoch(sqlite_store, job_id, token, record)
    found, iterations = schedule(sqlite_store, job_id)
    assert (found.learning_rates, found.warmup_epochs) == ([0.005, *[0.05] * 5], 1)
    assert iterations == 20  # two branches of 2 in each record


def test_a_schedule_is_there_when_all_epochs_are(sqlite_store):
    job_id, _ = train(sqlite_store, STPT[:2])
    with pytest.raises(StateConflict) as caught:
        schedule(sqlite_store, job_id)
    assert caught.value.detail == (
        f"job {job_id} has 2 of 3 epochs of stpt 1 recorded; the schedule is there when it has all"
    )


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ({"label": "reference"}, "1 of reference"),
        ({"label": "sweep", "trial": 3}, "3 of sweep"),
        ({"trial": 2}, "2 of"),
    ],
)
def test_a_trial_that_is_not_there(sqlite_store, which, wanted):
    methods = ["stpt", {"name": "sweep", "learning_rates": [0.4, 0.1]}]
    job_id, _ = train(sqlite_store, STPT, methods=methods)
    with pytest.raises(NotFound) as caught:
        schedule(sqlite_store, job_id, **which)
    assert f"has no trial {wanted}" in caught.value.detail
    assert caught.value.detail.endswith("; it has stpt (1 trials) and sweep (2 trials)")


# --- replay of a job ---------------------------------------------------------------------------------


def with_schedules(store: Store, **changes) -> JobSpec:
    with store.read() as session:
        return schedule_replay.with_schedules(session, JobSpec.model_validate(spec_document(**changes)))


def test_the_schedule_of_a_job_is_put_in_at_the_door(sqlite_store):
    job_id, _ = train(sqlite_store, STPT, lr_schedule="cosine", warmup={"epochs": 1})
    spec = with_schedules(sqlite_store, seed=7, methods=["reference", {"name": "replay", "job": job_id}])
    assert spec.methods[1].model_dump() == {
        "name": "replay",
        "label": "replay",
        "job": job_id,
        "schedule": {
            "learning_rates": [0.005, 0.2, 0.05],
            "lr_schedule": "cosine",
            "warmup_epochs": 1,
            "warmup_share": 0.0,
            "rescale_momentum": False,
        },
    }
    assert with_schedules(sqlite_store, **spec.model_dump()) == spec  # once is enough


def refusal(store: Store, **changes) -> tuple[str, object, str]:
    with pytest.raises(InvalidInput) as caught:
        with_schedules(store, **changes)
    [error] = caught.value.errors
    return error.field, error.value, error.message


def test_a_job_that_cannot_be_replayed(sqlite_store):
    methods = [{"name": "replay", "job": "job-0"}]
    sentence = "there is no job job-0; GET /v1/jobs lists the jobs"
    assert refusal(sqlite_store, methods=methods) == ("methods[0].job", "job-0", sentence)

    job_id, _ = train(sqlite_store, STPT[:2])
    field, value, message = refusal(sqlite_store, methods=["stpt", {"name": "replay", "job": job_id}])
    assert (field, value) == ("methods[1].job", job_id)
    assert "has 2 of 3 epochs of stpt 1 recorded" in message


def test_a_job_of_other_epochs_cannot_be_replayed(sqlite_store):
    job_id, _ = train(sqlite_store, STPT)
    assert refusal(sqlite_store, epochs=4, methods=[{"name": "replay", "job": job_id}]) == (
        "methods[0].schedule.learning_rates",
        3,
        "has 3 epochs, the job 4; set epochs to 3",
    )


# --- what past jobs have chosen ----------------------------------------------------------------------


def succeed(store: Store, rate: float, **changes) -> str:
    """A job whose search chose `rate` in its first epoch and stayed there."""
    records = [stpt_epoch(number, rate, val_accuracy=0.5 + number / 10) for number in (1, 2, 3)]
    values = {"lr_set": {"stages": [{"factors": [2.0, 1.0]}]}, "lr_schedule": "linear"}
    job_id, token = train(store, records, **values | changes)
    reports.finish(store, job_id, token, Outcome(state="succeeded"))
    return job_id


def completed(store: Store, accepted: JobSpec | None = None, **changes) -> JobSpec:
    with store.read() as session:
        spec = JobSpec.model_validate(spec_document(**{"lr_set": {"from_history": True}, **changes}))
        return past_jobs.complete(session, spec, accepted)


def test_learning_rates_of_the_history_are_put_in_at_the_door(sqlite_store):
    succeed(sqlite_store, 0.3)
    spec = completed(sqlite_store, global_batch_size=128)
    assert spec.initial_learning_rate == pytest.approx(0.6)
    assert spec.lr_set.model_dump() == {
        "kind": "stages",
        "stages": [{"factors": [2.0, 1.0, 0.5], "pretrain_share": 1.0}],
        "max_learning_rate": 1e6,
        "max_extensions": 4,
    }
    assert first_candidates(spec) == pytest.approx((1.2, 0.6, 0.3))
    assert completed(sqlite_store, **spec.model_dump()) == spec  # once is enough


def test_a_request_that_is_sent_again_keeps_what_it_was_given(sqlite_store):
    succeed(sqlite_store, 0.3)
    job_id, _ = submit_job(sqlite_store, completed(sqlite_store))
    jobs.cancel(sqlite_store, job_id)  # out of the way of the next one
    succeed(sqlite_store, 0.5)
    assert completed(sqlite_store).initial_learning_rate == pytest.approx(0.15**0.5)
    with sqlite_store.read() as session:
        accepted = stored_jobs.job_spec(get_job(session, job_id))
    assert completed(sqlite_store, accepted).initial_learning_rate == 0.3


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"optimizer": "adam"}, "lenet5 on digits with adam"),
        ({"model": "lenet5-bn"}, "lenet5-bn on digits with sgd"),
        ({"dataset": {"name": "image-folder", "path": "birds"}}, "lenet5 on image-folder birds with sgd"),
    ],
)
def test_without_evidence_there_is_no_history(sqlite_store, changes, why):
    succeed(sqlite_store, 0.3)
    train(sqlite_store, STPT)  # has not ended
    with pytest.raises(InvalidInput) as caught:
        completed(sqlite_store, **changes)
    [error] = caught.value.errors
    assert (error.field, error.value) == ("lr_set.from_history", True)
    assert error.message == (
        f"no succeeded job has trained {why} by stpt yet; submit one with lr_set left out, and what it chooses is "
        "recommended from then on"
    )


# --- a comparison of its methods ---------------------------------------------------------------------


def test_the_comparison_of_a_job(sqlite_store):
    methods = ["stpt", {"name": "sweep", "learning_rates": [0.4, 0.1]}, "reference"]
    records = [
        epoch(1, val_accuracy=0.5, test_accuracy=0.4, samples=1000),
        epoch(2, val_accuracy=0.8, test_accuracy=0.7, samples=500),
        scheduled_epoch(1, label="sweep", trial=2, val_accuracy=0.9, test_accuracy=0.6, samples=500),
        scheduled_epoch(1, label="sweep", trial=1, val_accuracy=0.7, test_accuracy=0.8, samples=500),
    ]
    job_id, _ = train(sqlite_store, records, methods=methods)
    with sqlite_store.read() as session:
        stpt, sweep, reference = of_jobs.comparison(session, job_id)
    assert [(run.method, run.trials, run.seeds) for run in (stpt, sweep, reference)] == [
        ("stpt", 1, 1),
        ("sweep", 2, 1),
        ("reference", 1, 0),
    ]
    assert (stpt.val_accuracy.mean, stpt.test_accuracy.mean, stpt.samples.mean) == (0.8, 0.7, 1500)
    assert (sweep.val_accuracy.mean, sweep.test_accuracy.mean, sweep.samples.mean) == (0.9, 0.6, 1000)
    # in the order recorded: the second trial came first
    assert [best.val_accuracy for best in sweep.by_seed[0].curve] == [0.9, 0.9]
    assert (sweep.samples_to_stpt.mean, sweep.relative_to_stpt.mean) == (500, pytest.approx(1 / 3))


# --- what a selector can be judged by ----------------------------------------------------------------


def test_the_branches_that_competed_in_the_end(sqlite_store):
    second = stpt_epoch(
        2,
        0.1,
        retries=1,
        rollbacks=1,
        branches=[
            branch(1, learning_rate=4.0, state="diverged", metric=None),
            branch(2, learning_rate=0.4, retry=1, state="rolled_back", metric=0.9),
            branch(3, learning_rate=0.2, retry=1, state="diverged", metric=None),
            branch(4, learning_rate=0.1, retry=1, state="chosen", metric=0.8, end_metric=0.85),
            branch(5, learning_rate=0.05, retry=1, metric=0.7, end_metric=0.75),
            branch(6, learning_rate=0.8, retry=1, metric=0.6),  # no candidate any more once 0.4 was undone
        ],
    )
    job_id, _ = train(sqlite_store, [STPT[0], second], warmup={"epochs": 1})
    with sqlite_store.read() as session:
        [(trial, [stored])] = of_jobs.stored_epochs(session, job_id, "stpt").items()  # none of the warm-up
    assert trial == 1
    assert (stored.epoch, stored.learning_rate, stored.end_metrics) == (2, 0.1, {4: 0.85, 5: 0.75})
    diverged, *others = stored.branches
    assert (diverged.number, diverged.learning_rate, math.isnan(diverged.metric)) == (3, 0.2, True)
    assert others == [BranchResult(4, 0.1, 0.8), BranchResult(5, 0.05, 0.7)]
