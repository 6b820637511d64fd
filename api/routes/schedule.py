"""The learning rates of a job as a schedule to train by."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import MAX_INT, NO_NUL, JobId, ServicesOf
from api.problems import documented
from service.results import schedule_replay
from service.store.jobs import get_job, job_spec
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get("/schedule", summary="The learning rates as a schedule", responses=documented(404, 409, 422))
def schedule(
    services: ServicesOf,
    job_id: JobId,
    method: Annotated[str | None, Query(max_length=50, pattern=NO_NUL, description="Default: the first run.")] = None,
    trial: Annotated[int, Query(ge=1, le=MAX_INT, description="Number of the trial in its method, from 1.")] = 1,
) -> answers.JobSchedule:
    """For `forerun.schedules.Replay`, or for the method `replay` of another job."""
    with services.store.read() as session:
        made, iterations = schedule_replay.schedule(session, job_id, method=method, trial=trial)
        name = method or job_spec(get_job(session, job_id)).methods[0].name
    return answers.JobSchedule(
        **made.model_dump(), job_id=job_id, method=name, trial=trial, iterations_per_epoch=iterations
    )
