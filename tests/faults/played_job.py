"""The Ray job of an attempt, played: what runs in place of `workers.job` where the training is of no concern.

It asks for its assignment, goes on from its newest checkpoint, and reports by the same code as the real one; the
training is the chain of `played`, an epoch every `PACE_S`.

    python -m tests.faults.played_job JOB_ID
"""

import sys
import time
from pathlib import Path

from service.settings import WorkerSettings
from service.spec.job import JobSpec
from service.wire.checkpoint import checkpoints_of
from service.wire.worker import Assignment, Outcome
from tests.faults import played
from workers.report import Reporter, exchange_ticket

PACE_S = 0.4


def main(job_id: str) -> None:
    settings = WorkerSettings()
    assignment = exchange_ticket(settings.api_url, job_id, settings.ticket.get_secret_value())
    name = f"{job_id}-a{assignment.attempt}"
    folder = checkpoints_of(settings.storage_dir, job_id)
    folder.mkdir(parents=True, exist_ok=True)
    with Reporter(settings.api_url, assignment, settings.storage_dir / name / "spool") as reporter:
        epochs = JobSpec.model_validate_json(assignment.spec).epochs
        epoch, state = _resumed(assignment, folder)
        while epoch < epochs:
            time.sleep(PACE_S)
            epoch, state = epoch + 1, played.next_state(state)
            record = played.record_of(epoch, state, assignment.attempt)
            assert record.checkpoint is not None
            unfinished = folder / f".{record.checkpoint.name}"
            unfinished.write_text(state)
            unfinished.rename(folder / record.checkpoint.name)
            reporter.epoch(record)
            if reporter.pause_asked and epoch < epochs:
                reporter.outcome(Outcome(state="paused"))
                return
        reporter.outcome(Outcome(state="succeeded"))


def _resumed(assignment: Assignment, folder: Path) -> tuple[int, str]:
    for point in assignment.resume:
        file = folder / point.checkpoint.name
        if file.exists() and played.vouched_for(file.read_text(), point.checkpoint.manifest_sha256):
            return point.epoch, file.read_text()
    return 0, played.START


if __name__ == "__main__":
    main(sys.argv[1])
