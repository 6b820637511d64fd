"""The route to what a job has printed."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import PlainTextResponse

from api.deps import MAX_INT, JobId, ServicesOf
from api.problems import documented
from service.jobs import lifecycle as jobs
from service.store.attempts import get_log
from service.store.jobs import get_job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get(
    "/{job_id}/logs",
    summary="What an attempt printed",
    response_class=PlainTextResponse,
    responses=documented(404, 422, 503),
)
def logs(
    services: ServicesOf,
    job_id: JobId,
    attempt: Annotated[
        int | None, Query(ge=1, le=MAX_INT, description="Number of the attempt; default: the newest.")
    ] = None,
) -> str:
    """The last 65,536 characters that the Ray job of an attempt has printed. While it runs Ray is asked for them;
    afterwards the database has them."""
    with services.store.read() as session:
        job = get_job(session, job_id)
        number = job.attempt if attempt is None else attempt
        kept = get_log(session, job_id, number)
    return jobs.log_end(services.fleet.logs(kept.submission_id)) if kept.log is None else kept.log
