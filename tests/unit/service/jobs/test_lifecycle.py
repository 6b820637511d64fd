"""The checks at the door, and all use cases against a slow obvious model of them.

Their contract, one by one and on both databases: tests/integration. `parse_spec`: test_spec.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from service.errors import (
    FieldError,
    ForerunError,
    IdempotencyConflict,
    InvalidInput,
    NotEnoughWorkers,
    RecordConflict,
    StaleAttempt,
    StateConflict,
)
from service.jobs import lifecycle as jobs
from service.jobs import reports
from service.jobs.pause import confirm_paused, pause, resume
from service.jobs.submit import submit_job
from service.spec.job import JobSpec
from service.store.engine import Store
from service.store.epochs import epochs_of
from service.store.events import events_after
from service.store.jobs import get_job, jobs_in
from service.store.tables import Job
from service.validation.means import check_capacity, check_dataset
from service.wire.states import TERMINAL, JobState
from service.wire.worker import EpochRecord, Outcome
from tests.unit.service.reports import epoch, warmup_epoch
from tests.unit.service.specs import small

pytest_plugins = ["tests.databases"]

S = JobState


def spec(**changes) -> JobSpec:
    return JobSpec.model_validate(small(**changes))


# --- the dataset's files -------------------------------------------------------------------------------


def refusal(call, *args, **kwargs) -> FieldError:
    with pytest.raises(InvalidInput) as caught:
        call(*args, **kwargs)
    [error] = caught.value.errors
    return error


def test_digits_and_datasets_to_be_fetched_need_no_files(tmp_path):
    check_dataset(spec(), tmp_path)
    check_dataset(spec(dataset={"name": "mnist", "download": True}), tmp_path)


def test_absent_files_are_the_fault_of_the_dataset(tmp_path):
    error = refusal(check_dataset, spec(dataset="mnist"), tmp_path)
    assert (error.field, error.value) == ("dataset", "mnist")
    assert f"is not in {tmp_path / 'MNIST' / 'raw'}; put its files there" in error.message
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    check_dataset(spec(dataset="mnist"), tmp_path)


def test_an_image_folder_must_be_there_and_hold_a_batch(tmp_path):
    birds = spec(dataset={"name": "image-folder", "path": "birds"}, global_batch_size=4)
    error = refusal(check_dataset, birds, tmp_path)
    assert (error.field, error.value) == ("dataset.path", "birds")
    assert f"needs {tmp_path}/birds/train/CLASS/IMAGE" in error.message

    for folder in ("train/robin", "val/robin"):
        (tmp_path / "birds" / folder).mkdir(parents=True)
    for number in range(4):
        (tmp_path / "birds" / "train" / "robin" / f"{number}.png").touch()
    error = refusal(check_dataset, birds, tmp_path)  # one of the four is held out
    assert (error.field, error.value) == ("global_batch_size", 4)
    assert error.message == "the training set has 3 samples, less than one batch; choose a smaller batch"

    (tmp_path / "birds" / "train" / "robin" / "4.png").touch()
    check_dataset(birds, tmp_path)


STUDY = {"name": "study", "batch_sizes": [2, 8, 4], "variants": [{"name": "plain", "method": "fixed"}]}


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"methods": ["stpt", STUDY]}, "methods[1].batch_sizes[1]", 8),
        (
            {"methods": [{"name": "random", "search_space": {"global_batch_size": {"choice": [4, 8]}}}]},
            "methods[0].search_space.global_batch_size",
            8,
        ),
        ({"methods": ["batch-ramp"]}, "global_batch_size", 4),
        ({"methods": ["random"], "budget": {"samples": 3}}, "budget.samples", 3),
    ],
)
def test_an_image_folder_must_hold_a_batch_of_every_trial(changes, field, value, tmp_path):
    """Of its six images one is held out."""
    for folder in ("train/robin", "val/robin"):
        (tmp_path / "birds" / folder).mkdir(parents=True)
    for number in range(6):
        (tmp_path / "birds" / "train" / "robin" / f"{number}.png").touch()
    birds = spec(dataset={"name": "image-folder", "path": "birds"}, global_batch_size=4, **changes)
    error = refusal(check_dataset, birds, tmp_path)
    assert (error.field, error.value) == (field, value)


# --- the cluster's size ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "workers", "cpus", "gpus"),
    [
        ("cpu", 4, 4, 0),
        ("auto", 4, 4.0, 0),
        ("auto", 8, 4, 8),
        ("auto", 16, 16, 2),
        ("cuda", 2, 1, 2),
        ("cpu", 1, 1, 0),
    ],
)
def test_a_job_that_fits(device, workers, cpus, gpus):
    check_capacity(spec(device=device, workers=workers), cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    ("device", "workers", "cpus", "gpus", "sentence"),
    [
        (
            "cpu",
            8,
            4.0,
            8.0,
            "workers: 8 asked for, one CPU each, but the cluster has 4 CPUs and 8 GPUs; "
            "ask for 4 at most, or grow the cluster",
        ),
        (
            "cuda",
            2,
            64,
            1,
            "workers: 2 asked for, one GPU each, but the cluster has 64 CPUs and 1 GPUs; "
            "ask for 1 at most, or grow the cluster",
        ),
        (
            "cuda",
            1,
            64,
            0,
            "device: cuda takes one of the cluster's GPUs a worker, and it has none; use auto or cpu, or add GPUs",
        ),
        (
            "auto",
            1,
            0,
            0,
            "device: auto takes one of the cluster's CPUs a worker, and it has none; try again when it has a node",
        ),
        (
            "auto",
            4,
            3.5,
            0,
            "workers: 4 asked for, one CPU each, but the cluster has 3.5 CPUs and 0 GPUs; "
            "ask for 3 at most, or grow the cluster",
        ),
    ],
)
def test_a_job_that_never_fits(device, workers, cpus, gpus, sentence):
    with pytest.raises(NotEnoughWorkers) as caught:
        check_capacity(spec(device=device, workers=workers), cpus=cpus, gpus=gpus)
    assert caught.value.detail == sentence


# --- logs ------------------------------------------------------------------------------------------------


def test_the_end_of_a_log_begins_with_a_whole_line():
    assert jobs.log_end("") == ""
    assert jobs.log_end("one\ntwo\n") == "one\ntwo\n"
    assert jobs.log_end("x" * 65_536) == "x" * 65_536
    assert jobs.log_end("first\nsecond\n" + "x" * 65_530) == "x" * 65_530
    assert jobs.log_end("x" * 70_000) == "x" * 65_536
    assert jobs.log_end("a\x00b\udc80") == "a\ufffdb?"


# --- all use cases against a model --------------------------------------------------------------------------


@dataclass
class Model:
    """What a job should be, kept in plain Python."""

    epochs: int
    state: JobState = S.QUEUED
    attempt: int = 0
    ticket: str | None = None  # of the live attempt, not yet exchanged
    token: str | None = None  # of the live attempt
    lost: list[int] = field(default_factory=list)
    recorded: dict[int, tuple[int, EpochRecord]] = field(default_factory=dict)  # epoch -> (attempt, record)
    events: list[tuple[str, int]] = field(default_factory=lambda: [("queued", 0)])  # (state or "epoch N", attempt)

    def move(self, state: JobState) -> None:
        self.state = state
        self.happened(state)

    def happened(self, what: str) -> None:
        self.events.append((str(what), self.attempt))


MAX_ATTEMPTS = 3
SUCCESS = Outcome(state="succeeded")
FAILURE = Outcome(state="failed", code="diverged", message="every branch did")
RECENT = st.integers(-4, -1)  # place in a list, from its end


class UseCases(RuleBasedStateMachine):
    """Users, controllers and workers, dead and alive, call the use cases in any order, with good and stale secrets."""

    def __init__(self, db: Store, check_design: Callable[[Store], None]) -> None:
        super().__init__()
        self.db = db
        self.check_design = check_design
        self.model: dict[str, Model] = {}  # by job id, in the order of submission
        self.keys: dict[str, tuple[int, str]] = {}  # idempotency key -> (epochs asked for, job id)
        self.tickets: list[tuple[str, str]] = []  # (job id, ticket), ever given
        self.tokens: list[tuple[str, str]] = []  # (job id, token), ever given

    def teardown(self) -> None:
        self.check_design(self.db)
        with self.db.write() as session:
            session.execute(delete(Job))

    def call(self, expected: type[ForerunError] | None, use_case, *args, **kwargs):
        """The use case, which must raise just what the model expects."""
        result, raised = None, None
        try:
            result = use_case(self.db, *args, **kwargs)
        except ForerunError as error:
            raised = type(error)
        assert raised is expected, use_case
        return result

    def jobs_in(self, *states: JobState) -> list[str]:
        return [job_id for job_id, job in self.model.items() if job.state in states]

    # --- users

    @precondition(lambda self: len(self.model) < 4)
    @rule(epochs=st.integers(1, 2), key=st.sampled_from([None, "a", "b"]))
    def submit(self, epochs, key):
        known = self.keys.get(key)
        conflict = known is not None and known[0] != epochs
        answer = self.call(IdempotencyConflict if conflict else None, submit_job, spec(epochs=epochs), key)
        if known is not None:
            assert conflict or answer == (known[1], False)
            return
        job_id, new = answer
        assert new
        assert job_id not in self.model
        self.model[job_id] = Model(epochs)
        if key is not None:
            self.keys[key] = (epochs, job_id)

    @precondition(lambda self: self.jobs_in(S.RUNNING))
    @rule(place=RECENT)
    def cancel(self, place):
        job_id = list(self.model)[place % len(self.model)]
        job = self.model[job_id]
        ended = job.state in (S.SUCCEEDED, S.FAILED)
        answer = self.call(StateConflict if ended else None, jobs.cancel, job_id)
        if not ended:
            if job.state not in (S.CANCELLING, S.CANCELLED):
                job.move(S.CANCELLED if job.state in (S.QUEUED, S.PAUSED) else S.CANCELLING)
            assert answer is job.state

    @precondition(lambda self: self.jobs_in(S.RUNNING))
    @rule(place=RECENT)
    def pause(self, place):
        job_id = list(self.model)[place % len(self.model)]
        job = self.model[job_id]
        refused = job.state in (S.SUCCEEDED, S.FAILED, S.CANCELLED, S.CANCELLING)
        answer = self.call(StateConflict if refused else None, pause, job_id)
        if not refused:
            if job.state not in (S.PAUSING, S.PAUSED):
                job.move(S.PAUSED if job.state in (S.QUEUED, S.RECOVERING) else S.PAUSING)
            assert answer is job.state

    @precondition(lambda self: self.jobs_in(S.PAUSED, S.PAUSING))
    @rule()
    def resume(self):
        job_id = self.jobs_in(S.PAUSED, S.PAUSING)[0]
        job = self.model[job_id]
        self.call(StateConflict if job.state is S.PAUSING else None, resume, job_id)
        if job.state is S.PAUSED:
            job.move(S.QUEUED)

    # --- the controller

    @precondition(lambda self: self.jobs_in(S.PAUSING))
    @rule()
    def confirm_paused(self):
        job_id = self.jobs_in(S.PAUSING)[0]
        self.call(None, confirm_paused, job_id)
        self.model[job_id].move(S.PAUSED)
        self.model[job_id].token = None

    @precondition(lambda self: self.jobs_in(S.QUEUED, S.RECOVERING))
    @rule()
    def claim(self):
        oldest = self.jobs_in(S.QUEUED, S.RECOVERING)[0]
        job = self.model[oldest]
        claim = self.call(None, jobs.claim_next)
        job.attempt += 1
        job.ticket, job.token = claim.ticket, None
        job.move(S.SUBMITTING)
        assert (claim.job_id, claim.attempt) == (oldest, job.attempt)
        self.tickets.append((claim.job_id, claim.ticket))

    @precondition(lambda self: self.jobs_in(S.SUBMITTING))
    @rule(place=RECENT, back=st.integers(0, 1))
    def reissue(self, place, back):
        job_id = list(self.model)[place % len(self.model)]
        job = self.model[job_id]
        claim = self.call(None, jobs.reissue_ticket, job_id, job.attempt - back)
        assert (claim is not None) == (job.state is S.SUBMITTING and back == 0)
        if claim is not None:
            job.ticket = claim.ticket
            self.tickets.append((job_id, claim.ticket))

    @precondition(lambda self: self.jobs_in(S.SUBMITTING, S.RUNNING))
    @rule(place=RECENT, back=st.sampled_from([0, 0, 0, 1]))
    def lose(self, place, back):
        job_id = list(self.model)[place % len(self.model)]
        job = self.model[job_id]
        attempt = job.attempt - back
        self.call(None, jobs.attempt_lost, job_id, attempt, "node died", max_attempts=MAX_ATTEMPTS)
        if back == 0 and job.state is S.PAUSING:
            job.lost.append(attempt)
            job.move(S.PAUSED)
        elif back == 0 and job.state in (S.SUBMITTING, S.RUNNING):
            job.lost.append(attempt)
            progress = max((number for number, _ in job.recorded.values()), default=0)
            in_a_row = [number for number in job.lost if number > progress]
            job.move(S.RECOVERING if len(in_a_row) < MAX_ATTEMPTS else S.FAILED)

    @precondition(lambda self: self.jobs_in(S.SUBMITTING, S.RUNNING))
    @rule(place=RECENT, back=st.sampled_from([0, 0, 0, 1]))
    def interrupt(self, place, back):
        job_id = list(self.model)[place % len(self.model)]
        job = self.model[job_id]
        self.call(None, jobs.attempt_interrupted, job_id, job.attempt - back)
        if back == 0 and job.state in (S.SUBMITTING, S.RUNNING, S.PAUSING):
            job.move(S.PAUSED if job.state is S.PAUSING else S.RECOVERING)

    @precondition(lambda self: self.jobs_in(S.CANCELLING))
    @rule(place=RECENT)
    def confirm_cancelled(self, place):
        job_id = list(self.model)[place % len(self.model)]
        self.call(None, jobs.confirm_cancelled, job_id)
        if self.model[job_id].state is S.CANCELLING:
            self.model[job_id].move(S.CANCELLED)

    # --- workers

    @precondition(lambda self: self.tickets)
    @rule(place=RECENT)
    def exchange(self, place):
        job_id, ticket = self.tickets[place % len(self.tickets)]
        job = self.model[job_id]
        good = job.state is S.SUBMITTING and ticket == job.ticket
        assignment = self.call(None if good else StaleAttempt, reports.exchange_ticket, job_id, ticket)
        if good:
            job.ticket, job.token = None, assignment.report_token
            job.move(S.RUNNING)
            assert (assignment.job_id, assignment.attempt) == (job_id, job.attempt)
            self.tokens.append((job_id, assignment.report_token))

    def _record(self, job_id: str, token: str, record: EpochRecord) -> None:
        job = self.model[job_id]
        known = job.recorded.get(record.epoch)
        own = known is not None and known[0] == job.attempt
        expected = None
        if job.state not in (S.RUNNING, S.PAUSING) or token != job.token:
            expected = StaleAttempt
        elif record.epoch > min(job.epochs, len(job.recorded) + 1) or (own and known[1] != record):
            expected = RecordConflict
        self.call(expected, reports.record_epoch, job_id, token, record)
        if expected is None and not own:
            job.recorded[record.epoch] = job.attempt, record
            job.happened(f"epoch {record.epoch}")

    @precondition(lambda self: self.tokens)
    @rule(place=RECENT, number=st.integers(1, 3), make=st.sampled_from([warmup_epoch, epoch]))
    def record_anything(self, place, number, make):
        self._record(*self.tokens[place % len(self.tokens)], make(number))

    @precondition(lambda self: self.jobs_in(S.RUNNING))
    @rule()
    def record_next(self):
        for job_id in self.jobs_in(S.RUNNING):
            job = self.model[job_id]
            self._record(job_id, job.token, epoch(min(job.epochs, len(job.recorded) + 1)))

    @precondition(lambda self: self.tokens)
    @rule(place=RECENT, outcome=st.sampled_from([SUCCESS, SUCCESS, FAILURE]))
    def finish(self, place, outcome):
        job_id, token = self.tokens[place % len(self.tokens)]
        job = self.model[job_id]
        again = job.state == outcome.state and token == job.token
        expected = None
        if not again and (job.state not in (S.RUNNING, S.PAUSING) or token != job.token):
            expected = StaleAttempt
        elif not again and outcome is SUCCESS and len(job.recorded) < job.epochs:
            expected = RecordConflict
        self.call(expected, reports.finish, job_id, token, outcome)
        if expected is None and not again:
            job.move(JobState(outcome.state))

    # --- the usual course of things, which would come too rarely by chance

    @initialize()
    def first_job(self):
        self.submit(epochs=2, key="a")

    @precondition(lambda self: self.jobs_in(S.QUEUED, S.RECOVERING))
    @rule()
    def start(self):
        self.claim()
        self.exchange(place=-1)

    @precondition(lambda self: self.jobs_in(S.RUNNING))
    @rule()
    def lose_and_start(self):
        self.lose(place=list(self.model).index(self.jobs_in(S.RUNNING)[0]), back=0)
        if self.jobs_in(S.QUEUED, S.RECOVERING):
            self.start()

    # --- and a look at all of it

    @precondition(lambda self: self.jobs_in(S.RUNNING))
    @rule()
    def restart(self):
        self.db.close()  # what is not in the file is gone

    @invariant()
    def the_database_says_what_the_model_says(self):
        with self.db.read() as session:
            for job_id, job in self.model.items():
                found = get_job(session, job_id)
                assert (found.state, found.attempt) == (job.state, job.attempt)
                events = events_after(session, job_id, 0)
                assert [
                    (f"epoch {e.data['epoch']}" if e.kind == "epoch" else e.data["state"], e.data.get("attempt", 0))
                    for e in events
                ] == job.events
                epochs = epochs_of(session, job_id)
                assert {e.epoch: (e.attempt, e.fingerprint) for e in epochs} == {
                    number: (attempt, record.fingerprint()) for number, (attempt, record) in job.recorded.items()
                }
            live = [job_id for job_id in self.model if job_id not in self.jobs_in(S.SUCCEEDED, S.FAILED, S.CANCELLED)]
            assert [job.id for job in jobs_in(session, [state for state in S if state not in TERMINAL])] == live


def test_all_use_cases_in_any_order(sqlite_store, invariants):
    run_state_machine_as_test(
        lambda: UseCases(sqlite_store, invariants),
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate],  # add Phase.shrink to look into a failure: it takes minutes
        ),
    )
