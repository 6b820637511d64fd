"""In process: Ray does not answer, for a while and in part, whatever state a job is in; the drivers train on."""

from tests.faults.world import World, in_process


@in_process
def ray_unreachable(world: World, number: int) -> None:
    """Two jobs, the second of which comes in the middle of it. No answer is no reason for a second attempt."""
    first = world.submit()
    for _ in range(world.draw.randrange(6)):
        world.turn()
    world.ray.unreachable_share = world.draw.choice([0.3, 0.7, 1.0])
    second = world.submit()
    for _ in range(world.draw.choice([1, 5, 20, 60])):
        world.turn()
    world.ray.unreachable_share = 0.0
    for job_id in (first, second):
        world.expect(job_id, attempts=1)
