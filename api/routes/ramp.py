"""The batch ramps of a job."""

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
    """Of each seed, the largest batch before validation accuracy fell, by learning rate and by momentum. The trials of
    the ramp are among the job's trials, in order."""
    with services.store.read() as session:
        return translate.batch_ramps(job_id, of_jobs.ramps(session, job_id, label))
