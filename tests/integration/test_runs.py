"""Jobs with several methods, and the jobs of an experiment: on SQLite and on a real PostgreSQL.

Each test leaves a database in which DESIGN.md's invariants hold: the `store` fixture checks them.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.errors import RecordConflict, StaleAttempt
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.submit import submit_job, submit_jobs
from service.spec.job import JobSpec
from service.store.engine import Store
from service.store.epochs import branches_of, epochs_of, epochs_with_branches
from service.store.jobs import get_job, jobs_of_experiment
from service.store.shown import list_jobs, shown_job
from service.store.trials import get_trial, list_trials
from service.wire.worker import Outcome, TrialRecord
from tests.builders import claim, spec_document, train
from tests.integration.jobs_in_sql import FAILURE, events_of
from tests.unit.service.reports import checkpoint, epoch, scheduled_epoch

pytest_plugins = ["tests.databases"]

METHODS = ["reference", {"name": "sweep", "learning_rates": [0.2, 0.1, 0.2]}, "stpt"]  # two learning rates: two trials
SUCCESS = Outcome(state="succeeded")


def start(store: Store, *records, **changes: Any) -> tuple[str, str]:
    """Make a running job of all METHODS, and return its id and report token."""
    return train(store, records, epochs=1, methods=METHODS, **changes)


def reference(number: int = 1, **changes: Any):
    return scheduled_epoch(number, label="reference", **changes)


def sweep(trial: int, number: int = 1, **changes: Any):
    return scheduled_epoch(number, label="sweep", trial=trial, **changes)


def test_a_run_for_each_method_and_a_trial_for_each_training(store):
    job_id, _ = start(store)
    with store.read() as session:
        trials = [(trial.method, trial.number) for trial in list_trials(session, job_id)]
        assert get_job(session, job_id).trials == 4
    assert trials == [("reference", 1), ("sweep", 1), ("sweep", 2), ("stpt", 1)]  # in the order of the spec


def test_success_needs_the_epochs_of_every_trial(store):
    job_id, token = start(store, reference(), sweep(1), epoch(1))
    with pytest.raises(RecordConflict) as caught:
        reports.finish(store, job_id, token, SUCCESS)
    assert caught.value.detail == f"job {job_id} has 0 of 1 epochs of sweep 2 recorded; report the others first"
    reports.record_epoch(store, job_id, token, sweep(2))
    reports.finish(store, job_id, token, SUCCESS)


def test_a_trial_that_the_job_does_not_have(store):
    job_id, token = start(store)
    for record, what in (
        (sweep(3), "trial 3 of sweep"),
        (epoch(1, label="replay"), "trial 1 of replay"),
    ):
        with pytest.raises(RecordConflict, match=f"has no {what}"):
            reports.record_epoch(store, job_id, token, record)


def test_epochs_of_a_job_are_told_apart_by_method_and_trial(store):
    job_id, _ = start(store, epoch(1), sweep(2), sweep(1), reference())
    with store.read() as session:
        rows = [(row.method, row.trial, row.epoch) for row in epochs_of(session, job_id)]
        [second] = epochs_with_branches(session, job_id, label="sweep", trial=2)
        assert {row.method for row in branches_of(session, job_id)} == {"stpt"}
    assert rows == [("reference", 1, 1), ("sweep", 1, 1), ("sweep", 2, 1), ("stpt", 1, 1)]
    assert second.trial == 2


def test_what_a_record_says_comes_back(store):
    record = epoch(
        1,
        first_learning_rate=0.1,
        last_learning_rate=0.0,
        rollbacks=2,
        audit={"branches": 1, "samples": 128, "regret": 0.25, "rank_correlation": None},
    )
    job_id, _ = start(store, record)
    with store.read() as session:
        [row] = epochs_of(session, job_id)
    assert (row.first_learning_rate, row.last_learning_rate, row.rollbacks) == (0.1, 0.0, 2)
    assert row.audit == {"branches": 1, "samples": 128, "regret": 0.25, "rank_correlation": None}


def test_every_trial_resumes_where_it_stands(store):
    job_id, _ = train(
        store,
        [
            reference(1, checkpoint=checkpoint(1)),
            reference(2, checkpoint=checkpoint(2)),
            sweep(1, 1, checkpoint=checkpoint(3)),
            sweep(2, 1),  # its checkpoint is gone
            epoch(1, checkpoint=checkpoint(4)),
        ],
        epochs=2,
        methods=METHODS,
    )
    jobs.attempt_lost(store, job_id, 1, "node died", max_attempts=3)
    again = claim(store)
    points = reports.exchange_ticket(store, job_id, again.ticket).resume
    assert [(point.label, point.trial, point.epoch, point.checkpoint.name) for point in points] == [
        ("reference", 1, 2, "epoch-2-a1"),
        ("reference", 1, 1, "epoch-1-a1"),
        ("sweep", 1, 1, "epoch-3-a1"),
        ("stpt", 1, 1, "epoch-4-a1"),
    ]


def test_the_latest_epoch_is_that_of_the_first_trial_of_the_first_run(store):
    job_id, token = train(store, [sweep(1, 1), sweep(1, 2), epoch(1)], epochs=2, methods=METHODS)
    with store.read() as session:
        assert shown_job(session, job_id).first_training.epochs_done == 0
    reports.record_epoch(store, job_id, token, reference(1, val_accuracy=0.75))
    with store.read() as session:
        row = shown_job(session, job_id).first_training
    assert (row.epochs_done, row.val_accuracy) == (1, 0.75)


# --- experiments -------------------------------------------------------------------------------------


def specs(experiment: str, count: int = 3) -> list[JobSpec]:
    documents = [spec_document(name=f"job {number}", experiment=experiment) for number in range(count)]
    return [JobSpec.model_validate(document) for document in documents]


def test_the_jobs_of_an_experiment_come_at_once_and_once(store):
    ids = submit_jobs(store, specs("a study"), "a study")
    others = submit_jobs(store, specs("another", 1), "another")
    assert submit_jobs(store, specs("a study", 2), "a study") == ids
    with store.read() as session:
        found = jobs_of_experiment(session, "a study")
        assert [(job.id, job.name, job.state) for job in found] == [
            (job_id, f"job {number}", "queued") for number, job_id in enumerate(ids)
        ]
        page = list_jobs(session, experiment="a study", limit=10)
        assert [job.id for job in page.items] == ids[::-1]
        assert [job.id for job in list_jobs(session, limit=10).items] == [*others, *ids[::-1]]


def test_the_jobs_of_an_experiment_come_all_or_not_at_all(store, monkeypatch):
    written = []

    def power_cut(*args: Any) -> None:
        written.append(args)
        if len(written) == 2:
            raise RuntimeError("power cut")

    monkeypatch.setattr("service.jobs.submit.tell_of_submission", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        submit_jobs(store, specs("a study"), "a study")
    with store.read() as session:
        assert jobs_of_experiment(session, "a study") == []


def test_eight_requests_for_an_experiment_at_once_are_one(store):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: submit_jobs(store, specs("a study"), "a study"), range(8)))
    assert answers == [answers[0]] * 8
    with store.read() as session:
        assert len(jobs_of_experiment(session, "a study")) == 3


# --- searches ------------------------------------------------------------------------------------------


def start_search(store):
    job_id, _ = submit_job(store, JobSpec.model_validate(spec_document(epochs=1, seed=7, methods=["tpe"])))
    return job_id, reports.exchange_ticket(store, job_id, claim(store).ticket).report_token


def trial_record(number: int, **changes: Any) -> TrialRecord:
    values = {"label": "tpe", "trial": number, "key": f"k{number}", "seed": 7, "epochs": 1, "state": "running"}
    return TrialRecord(**{**values, "config": {"learning_rate": 0.1 * number}, **changes})


def test_a_search_adds_its_trials_as_they_begin(store):
    job_id, token = start_search(store)
    for number in (1, 2):
        reports.record_trial(store, job_id, token, trial_record(number))
        reports.record_trial(store, job_id, token, trial_record(number))  # a repeat
    reports.record_epoch(store, job_id, token, scheduled_epoch(1, label="tpe", trial=1, samples=1000))
    with pytest.raises(RecordConflict, match="has 0 of 1 epochs of tpe 2 recorded"):
        reports.finish(store, job_id, token, SUCCESS)
    reports.record_trial(store, job_id, token, trial_record(2, state="stopped", message="the budget is used up"))
    progress = reports.progress(store, job_id, token)
    assert [(t.trial, t.key, t.seed, t.config, t.state, t.epochs, t.samples) for t in progress] == [
        (1, "k1", 7, {"learning_rate": 0.1}, "completed", 1, 1000),
        (2, "k2", 7, {"learning_rate": 0.2}, "stopped", 0, 0),
    ]
    kinds = [(kind, data.get("trial"), data.get("state")) for _, kind, data in events_of(store, job_id)]
    assert kinds[3:] == [
        ("trial", 1, "running"),
        ("trial", 2, "running"),
        ("epoch", 1, None),
        ("trial", 2, "stopped"),
    ]
    reports.finish(store, job_id, token, SUCCESS)
    with store.read() as session:
        assert get_job(session, job_id).trials == 2


def test_wrong_trials_are_refused(store):
    job_id, token = start_search(store)
    reports.record_trial(store, job_id, token, trial_record(1))
    with pytest.raises(RecordConflict, match=f"trial 1 of tpe of job {job_id} is k1"):
        reports.record_trial(store, job_id, token, trial_record(1, key="k9"))
    with pytest.raises(RecordConflict, match="has no run pbt"):
        reports.record_trial(store, job_id, token, trial_record(1, label="pbt"))
    with pytest.raises(RecordConflict, match="has no trial 2 of tpe"):
        reports.record_epoch(store, job_id, token, scheduled_epoch(1, label="tpe", trial=2))
    with pytest.raises(RecordConflict, match="has 1 epochs; 2 is not one of them"):
        reports.record_epoch(store, job_id, token, scheduled_epoch(2, label="tpe", trial=1))
    with pytest.raises(StaleAttempt):
        reports.record_trial(store, job_id, "guess", trial_record(1))
    with pytest.raises(StaleAttempt):
        reports.progress(store, job_id, "guess")


def test_what_an_epoch_that_is_trained_again_had_cost_is_kept(store):
    job_id, token = start_search(store)
    reports.record_trial(store, job_id, token, trial_record(1))
    reports.record_epoch(store, job_id, token, scheduled_epoch(1, label="tpe", trial=1, samples=1000))
    jobs.attempt_lost(store, job_id, 1, "node died", max_attempts=3)
    again = reports.exchange_ticket(store, job_id, claim(store).ticket)
    assert [(trial.key, trial.epochs, trial.samples) for trial in again.trials] == [("k1", 1, 1000)]
    record = scheduled_epoch(1, label="tpe", trial=1, samples=1000, seconds=9.0)
    reports.record_epoch(store, job_id, again.report_token, record)
    with store.read() as session:
        assert get_trial(session, job_id, "tpe", 1).lost_samples == 1000
    reports.finish(store, job_id, again.report_token, FAILURE)


def test_the_end_of_a_job_stops_what_has_not_ended(store):
    job_id, token = start_search(store)
    reports.record_trial(store, job_id, token, trial_record(1))
    reports.finish(store, job_id, token, FAILURE)
    with store.read() as session:
        assert get_trial(session, job_id, "tpe", 1).state == "stopped"
