"""The route to the learning rates of a job as a schedule to train by."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import MAX_INT, JobId, RunLabel, ServicesOf
from api.problems import documented
from service.results import schedule_replay
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get("/schedule", summary="The learning rates as a schedule", responses=documented(404, 409, 422))
def schedule(
    services: ServicesOf,
    job_id: JobId,
    label: Annotated[RunLabel | None, Query(description="Label of the run; default: the first.")] = None,
    trial: Annotated[int, Query(ge=1, le=MAX_INT, description="Number of the trial in its run, from 1.")] = 1,
) -> answers.JobSchedule:
    """The learning rates of a trial that has ended, as a schedule for `forerun.schedules.Replay` or for the method
    `replay` of another job."""
    with services.store.read() as session:
        found = schedule_replay.schedule(session, job_id, label=label, trial=trial)
    return answers.JobSchedule(
        **found.schedule.model_dump(),
        job_id=job_id,
        label=found.run.label,
        method=found.run.name,
        trial=trial,
        iterations_per_epoch=found.iterations_per_epoch,
    )
