"""In process: the service is killed between the steps by which a job gets to Ray, at any statement of SQL there.

accept   before the transaction of the submission is committed
commit   after that, before the client is answered
submit   in the pass that claims the job, before Ray has it
adopt    when Ray has it, before the controller knows, and until the driver has what it asked for
"""

from service.wire.states import JobState
from tests.faults.world import World, in_process


@in_process
def accept(world: World, number: int) -> None:
    world.fuse.arm("never")
    world.submit()
    statements = world.fuse.counted["statement"]
    world.fuse.arm("statement", world.draw.randint(1, statements))
    world.submit()
    assert not world.fuse.disarm(), "the service did not die"


@in_process
def commit(world: World, number: int) -> None:
    world.fuse.arm("commit")
    world.submit()
    assert not world.fuse.disarm(), "the service did not die"
    for _ in range(world.draw.randrange(4)):
        world.turn()
    world.submit()


@in_process
def submit(world: World, number: int) -> None:
    world.submit()
    if number % 4 == 3:  # it leads already
        world.turn()
        world.submit()
    way = world.draw.choice(["statement", "commit", "submit"])
    world.fuse.arm(way, world.draw.randint(1, {"statement": 24, "commit": 2, "submit": 1}[way]))
    for _ in range(world.draw.randint(1, 14)):  # after ten it is no more waited for what may be under way
        world.turn()
    for job_id in world.accepted:
        world.expect(job_id, attempts=1)


@in_process
def adopt(world: World, number: int) -> None:
    job_id = world.submit()
    world.expect(job_id, attempts=1)
    if number % 2:
        world.fuse.arm("submitted")
        world.turn(works=False)
        assert not world.fuse.disarm(), "the service did not die"
    else:
        world.until(lambda: world.state(job_id) is JobState.SUBMITTING, works=False)
    world.fuse.arm(*world.draw.choice([("statement", world.draw.randint(1, 30)), ("commit", 1)]))
    for _ in range(world.draw.randint(1, 4)):
        world.turn()
