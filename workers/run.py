"""One STPT training from where it stands to its end: each epoch checkpointed, then reported. Runs without Ray."""

from collections.abc import Iterator
from pathlib import Path

import torch

from service.records import Assignment, EpochRecord, ResumePoint
from workers import checkpoint
from workers.checkpoint import Position
from workers.report import Reporter
from workers.stpt import Stpt


def run(stpt: Stpt, assignment: Assignment, folder: Path, reporter: Reporter | None) -> Iterator[EpochRecord]:
    """Resume from the newest usable checkpoint in `folder`, then yield each epoch's record as it is handed over.

    Every worker of the world runs this; the one with rank 0, and only it, has a reporter.
    """
    points = resume(stpt, folder, assignment.resume)
    for record in stpt.epochs():
        if reporter is not None:
            name = f"epoch-{record.epoch:06d}-a{assignment.attempt}"
            ref = checkpoint.save(folder, name, stpt.trainer.tensors, stpt.position)
            reporter.epoch(record.model_copy(update={"checkpoint": ref}))
            points.append(ResumePoint(epoch=record.epoch, val_accuracy=record.val_accuracy, checkpoint=ref))
            if not reporter.waiting():  # else SQL still counts on older ones
                checkpoint.prune(folder, checkpoint.to_keep(points))
        yield record
    if reporter is not None:
        reporter.flush()


@torch.no_grad()
def resume(stpt: Stpt, folder: Path, points: list[ResumePoint]) -> list[ResumePoint]:
    """Bring every worker to the newest usable point, or leave it at the start; the points up to there.

    Rank 0 reads the files and broadcasts, so that all workers go on from one and the same state.
    """
    trainer, world = stpt.trainer, stpt.trainer.workers.world
    position = stpt.position
    if trainer.workers.rank == 0 and (found := checkpoint.load_newest(folder, points, trainer.tensors)) is not None:
        tensors, position = found
        for name, tensor in trainer.tensors.items():
            tensor.copy_(tensors[name])
    header = torch.tensor([position.epochs, position.learning_rate], dtype=torch.float64, device=trainer.workers.device)
    epochs, learning_rate = world.broadcast_(header, 0).tolist()
    trainer.state.load(world.broadcast_(trainer.state.save(trainer.state.empty()), 0))
    stpt.position = Position(epochs=int(epochs), learning_rate=learning_rate)
    return [point for point in points if point.epoch <= stpt.position.epochs]
