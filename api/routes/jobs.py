"""Submit, list, read and cancel jobs."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import PlainTextResponse

from api import schemas
from api.deps import MAX_INT, JobId, Services, ServicesOf, Text, read_json, split
from api.problems import documented
from service.jobs import lifecycle as jobs
from service.jobs import submit as submission
from service.spec.job import JobSpec
from service.store import jobs as stored_jobs
from service.store.attempts import get_log
from service.store.epochs import latest_epochs
from service.store.jobs import get_job
from service.validation.door import MAX_SPEC_BYTES
from service.wire.states import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


async def spec_body(request: Request) -> bytes:
    return await read_json(request, MAX_SPEC_BYTES)


# The body is read raw: parse_spec is the one door for specs. So its schema is named here by hand.
SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/JobSpec"},
                "examples": {
                    example.get("name", example["model"]): {"value": example}
                    for example in JobSpec.model_json_schema()["examples"]
                },
            }
        },
    }
}
_LOCATION = {"description": "Path of the job.", "schema": {"type": "string"}}
_IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern="^[!-~]+$",
        description="Chosen by the client: the same key and spec again give the same job, not a second one.",
    ),
]


@router.post(
    "",
    status_code=202,
    summary="Submit a job",
    openapi_extra=SPEC_BODY,
    responses={202: {"headers": {"Location": _LOCATION}}, **documented(409, 415, 422)},
)
def submit(
    services: ServicesOf,
    raw: Annotated[bytes, Depends(spec_body)],
    response: Response,
    idempotency_key: _IdempotencyKey = None,
) -> schemas.Job:
    """Checked in full before it is accepted; then it is stored, and trained as soon as the cluster has room."""
    job_id = submission.submit(services.store, raw, services.means(), idempotency_key)
    services.fleet.wake()
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return job_answer(services, job_id)


class JobFilter(BaseModel):
    """The query of a list of jobs."""

    state: Annotated[list[JobState], BeforeValidator(split)] = Field([], description="Repeated or comma separated.")
    model: Text | None = None
    dataset: Text | None = None
    name: Text | None = Field(None, description="The whole name, exactly.")
    experiment: Text | None = Field(None, description="The whole name of the experiment, exactly.")
    limit: int = Field(50, ge=1, le=200)
    cursor: Text | None = Field(None, description="`next_cursor` of the page before.")


@router.get("", summary="List jobs, newest first", responses=documented(422))
def list_jobs(services: ServicesOf, query: Annotated[JobFilter, Query()]) -> schemas.JobPage:
    """Pages stay put while new jobs arrive: a cursor means "older than this"."""
    with services.store.read() as session:
        page = stored_jobs.list_jobs(session, **query.model_dump())
        last = latest_epochs(session, [job.id for job in page.items])
        items = [schemas.Job.of(job, last.get(job.id), services.fleet.dashboard_url) for job in page.items]
        return schemas.JobPage(items=items, next_cursor=page.next_cursor)


@router.get("/{job_id}", summary="Read a job", responses=documented(404, 422))
def read(services: ServicesOf, job_id: JobId) -> schemas.Job:
    return job_answer(services, job_id)


@router.get(
    "/{job_id}/logs",
    summary="What an attempt printed",
    response_class=PlainTextResponse,
    responses=documented(404, 422, 503),
)
def logs(
    services: ServicesOf,
    job_id: JobId,
    attempt: Annotated[int | None, Query(ge=1, le=MAX_INT, description="Default: the newest.")] = None,
) -> str:
    """The last 65,536 characters that its Ray job printed. While that runs Ray is asked; afterwards SQL has them."""
    with services.store.read() as session:
        number = get_job(session, job_id).attempt if attempt is None else attempt
        submission_id, log = get_log(session, job_id, number)
    return jobs.log_end(services.fleet.logs(submission_id)) if log is None else log


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=documented(404, 409, 422))
def cancel(services: ServicesOf, job_id: JobId) -> schemas.Job:
    """The job becomes `cancelling`, and `cancelled` once Ray has confirmed its end. Asking again changes nothing."""
    jobs.cancel(services.store, job_id)
    services.fleet.wake()
    return job_answer(services, job_id)


def job_answer(services: Services, job_id: str) -> schemas.Job:
    with services.store.read() as session:
        job = get_job(session, job_id)
        last = latest_epochs(session, [job_id]).get(job_id)
        return schemas.Job.of(job, last, services.fleet.dashboard_url)
