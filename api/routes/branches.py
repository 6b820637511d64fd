"""The route to every branch that a job has trained."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import MAX_INT, JobId, ServicesOf
from api.problems import documented
from service.store.epochs import branches_of
from service.store.jobs import check_job
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])


@router.get("/branches", summary="Every branch of every Pre-train", responses=documented(404, 422))
def branches(
    services: ServicesOf,
    job_id: JobId,
    epoch: Annotated[
        int | None, Query(ge=1, le=MAX_INT, description="Only branches of the epoch with this number.")
    ] = None,
) -> answers.BranchList:
    """Lists every branch of all trainings of the job, or those of one epoch of each training. They come by run, trial,
    epoch and number."""
    with services.store.read() as session:
        check_job(session, job_id)
        found = branches_of(session, job_id, epoch)
    return answers.BranchList(job_id=job_id, items=[answers.BranchOfEpoch.model_validate(one) for one in found])
