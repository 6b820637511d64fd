"""In process: a cancel or a pause in every state of a job; every third time the service dies of the request, and the
client asks again."""

from collections.abc import Callable
from contextlib import suppress

from service.errors import StateConflict
from service.jobs.lifecycle import cancel as cancel_job
from service.jobs.pause import pause as pause_job
from service.jobs.pause import resume
from service.store.engine import Store
from service.wire.states import JobState
from service.wire.worker import Outcome
from tests.faults.invariants import Kind
from tests.faults.world import Away, World, in_process

S = JobState
FAILURE = Outcome(state="failed", code="diverged", message="every branch diverged")


@in_process
def cancel(world: World, number: int) -> None:
    job_id, state = _job_in(world, number)
    if state in (S.SUCCEEDED, S.FAILED):
        _refused(world, job_id, cancel_job)
        return
    _ask(world, number, lambda db: cancel_job(db, job_id))
    world.expect(job_id, state=S.CANCELLED, results=None)
    for _ in range(world.draw.randrange(3)):
        world.turn()
    world.call(lambda db: cancel_job(db, job_id))  # asked once more


@in_process
def pause(world: World, number: int) -> None:
    job_id, state = _job_in(world, number)
    if state in (S.SUCCEEDED, S.FAILED, S.CANCELLED, S.CANCELLING):
        _refused(world, job_id, pause_job)
        return
    _ask(world, number, lambda db: pause_job(db, job_id))
    world.until(lambda: world.state(job_id) in (S.PAUSED, S.SUCCEEDED))
    if world.state(job_id) is S.SUCCEEDED:  # its last epoch was on its way
        return
    if world.ray.live():
        world.tell(Kind.LEFT_BEHIND, job_id, f"it is paused, and Ray runs {world.ray.live()}")
    for _ in range(world.draw.randrange(20)):
        world.turn()
    if world.state(job_id) is not S.PAUSED:
        world.tell(Kind.WRONG_STATE, job_id, f"it was paused, and went on to {world.state(job_id)} by itself")
    _ask(world, number + 1, lambda db: resume(db, job_id))


def _ask(world: World, number: int, use_case: Callable[[Store], object]) -> None:
    if number % 3 == 0:
        world.fuse.arm(*world.draw.choice([("commit", 1), ("statement", world.draw.randint(1, 4))]))
    with suppress(Away):
        world.call(use_case)
        world.fuse.disarm()
        return
    world.call(use_case)


def _refused(world: World, job_id: str, use_case: Callable[[Store, str], object]) -> None:
    before = world.state(job_id)
    try:
        use_case(world.store, job_id)
    except StateConflict:
        pass
    else:
        world.tell(Kind.WRONG_STATE, job_id, f"{use_case.__name__} was granted, though it is {before}")
    if world.state(job_id) is not before:
        world.tell(Kind.WRONG_STATE, job_id, f"{use_case.__name__} was refused, and it went from {before} on")


def _job_in(world: World, number: int) -> tuple[str, JobState]:
    """A job in one of all states, in turn."""
    state = list(S)[number % len(S)]
    job_id = world.submit()
    match state:
        case S.SUBMITTING:
            world.turn(works=False)
        case S.RUNNING:
            _runs(world, job_id)
        case S.PAUSING:
            _runs(world, job_id)
            pause_job(world.store, job_id)
        case S.PAUSED:
            _runs(world, job_id)
            pause_job(world.store, job_id)
            world.until(lambda: world.state(job_id) is S.PAUSED)
        case S.RECOVERING:
            _runs(world, job_id)
            world.ray.restart("session-2")
            world.controller.run_pass()
        case S.CANCELLING:
            _runs(world, job_id)
            cancel_job(world.store, job_id)
            world.expect(job_id, state=S.CANCELLED, results=None)
        case S.SUCCEEDED:
            world.until(lambda: world.state(job_id) is S.SUCCEEDED)
        case S.FAILED:
            _runs(world, job_id)
            world.driver_of(job_id).fails_with = FAILURE
            world.until(lambda: world.state(job_id) is S.FAILED)
            world.expect(job_id, state=S.FAILED, results=None)
        case S.CANCELLED:
            cancel_job(world.store, job_id)
            world.expect(job_id, state=S.CANCELLED, results=None)
    assert world.state(job_id) is state, f"{world.state(job_id)} instead of {state}"
    return job_id, state


def _runs(world: World, job_id: str) -> None:
    """Let the job run, with none or one of its epochs recorded."""
    world.until(lambda: world.state(job_id) is S.RUNNING)
    for _ in range(world.draw.randrange(2)):
        world.turn()
