"""The route to the batch ramps of a job."""

from typing import Annotated

from fastapi import APIRouter, Query

from api import translate
from api.deps import JobId, RunLabel, ServicesOf
from api.problems import documented
from service.results import of_jobs
from service.wire import answers

router = APIRouter(prefix="/v1", tags=["comparison"])


@router.get("/jobs/{job_id}/ramp", summary="The largest batches of a batch ramp", responses=documented(404, 422))
def ramp(
    services: ServicesOf,
    job_id: JobId,
    label: Annotated[RunLabel | None, Query(description="Label of the ramp; default: the first.")] = None,
) -> answers.BatchRamps:
    """Lists, for each seed of the ramp, the largest batch size before validation accuracy fell, by scaling the learning
    rate and by scaling the momentum. The ramp's trainings are among the trials of the job, in their order."""
    with services.store.read() as session:
        return translate.batch_ramps(job_id, of_jobs.ramps(session, job_id, label))
