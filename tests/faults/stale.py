"""In process: an attempt that was superseded goes on, out of Ray's sight, and reports what it can think of."""

from collections.abc import Callable

from service.errors import StaleAttempt
from service.jobs import reports
from service.store.engine import Store
from service.store.epochs import epochs_of
from service.store.jobs import get_job
from service.wire.states import JobState
from service.wire.worker import Outcome, TrialRecord
from tests.faults import played
from tests.faults.invariants import Kind
from tests.faults.world import EPOCHS, Driver, World, in_process

TRIAL = TrialRecord(label="stpt", trial=1, seed=0, epochs=EPOCHS, state="diverged")


@in_process
def stale_attempt(world: World, number: int) -> None:
    """Ray is started anew while an attempt runs; its driver lives on, and reports until the job has ended."""
    job_id = world.submit()
    world.until(lambda: world.state(job_id) is JobState.RUNNING)
    for _ in range(world.draw.randrange(EPOCHS)):
        world.turn()
    stale = world.driver_of(job_id)
    stale.in_ray = False
    stale.ended = True  # what it does from now on is done below
    world.ray.restart("session-2")
    while world.state(job_id) is JobState.RUNNING:
        world.turn(works=False)
    while not world.driver_of(job_id).ended or world.driver_of(job_id) is stale:
        _report_anything(world, stale)
        world.turn(works=world.draw.random() < 0.7)
    _report_anything(world, stale)


def _report_anything(world: World, stale: Driver) -> None:
    """Let a driver that was superseded ask for one thing, which must be refused and change nothing."""
    assert stale.assignment is not None
    job_id, token = stale.job_id, stale.assignment.report_token
    epoch = world.draw.randint(1, EPOCHS)
    record = played.record_of(epoch, played.START, 1)
    asks: list[Callable[[Store], object]] = [
        lambda db: reports.exchange_ticket(db, job_id, stale.ticket),
        lambda db: reports.exchange_ticket(db, job_id, stale.ticket, token),
        lambda db: reports.record_epoch(db, job_id, token, record),
        lambda db: reports.record_trial(db, job_id, token, TRIAL),
        lambda db: reports.progress(db, job_id, token),
        lambda db: reports.finish(db, job_id, token, Outcome(state="succeeded")),
        lambda db: reports.finish(db, job_id, token, Outcome(state="paused")),
        lambda db: reports.finish(db, job_id, token, Outcome(state="failed", code="stale", message="it is stale")),
    ]
    ask = world.draw.randrange(len(asks))
    before = _facts(world, job_id)
    try:
        asks[ask](world.store)
    except StaleAttempt:
        pass
    else:
        world.tell(Kind.STALE_WRITE, job_id, f"ask {ask} of a superseded attempt was granted")
    if _facts(world, job_id) != before:
        world.tell(Kind.STALE_WRITE, job_id, f"ask {ask} of a superseded attempt has changed the job")


def _facts(world: World, job_id: str) -> object:
    with world.store.read() as session:
        return get_job(session, job_id), epochs_of(session, job_id)
