"""In process: the clocks of the machine and of the database jump, forwards and back, by up to a day."""

from datetime import datetime, timedelta

from service.jobs.terms import change_terms
from service.store.jobs import get_job
from tests.faults.invariants import Kind
from tests.faults.world import World, in_process

JUMPS_S = (-86_400, -7200, -60, 60, 7200, 86_400)
LIMIT_S = 3600  # of a job that takes some seconds


@in_process
def clock_jump(world: World, number: int) -> None:
    """Several jumps within a job that has a time limit and one that waits; none costs an attempt, or the job."""
    for job_id in (world.submit(), world.submit()):
        world.expect(job_id, attempts=1)
    first = next(iter(world.accepted))
    change_terms(world.store, first, {"time_limit": LIMIT_S})
    for _ in range(world.draw.randint(1, 4)):
        for _ in range(world.draw.randrange(3)):
            world.turn()
        jump = timedelta(seconds=world.draw.choice(JUMPS_S))
        which = world.draw.choice(["wall", "database", "both"])
        if which != "database":
            world.clock.wall += jump
        if which != "wall":
            world.clock.database += jump
    world.until(lambda: all(_ended(world, job_id) for job_id in world.accepted))
    for job_id in world.accepted:
        with world.store.read() as session:
            job = get_job(session, job_id)
        spans: list[tuple[datetime | None, datetime | None]] = [(job.created_at, job.started_at)]
        spans += [(job.started_at, job.finished_at)]
        if any(begun and ended and ended < begun for begun, ended in spans):
            world.tell(Kind.BROKEN_RECORDS, job_id, f"it took less than no time: {spans}")


def _ended(world: World, job_id: str) -> bool:
    with world.store.read() as session:
        return get_job(session, job_id).finished_at is not None
