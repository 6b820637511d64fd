"""The routes to submit, list, read and cancel jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from api import translate
from api.deps import JobId, ServicesOf, Text, split
from api.formats import json_answer
from api.problems import documented
from api.specs import SPEC_BODY, RawSpec
from api.terms import Priority, TimeLimit
from service.jobs import lifecycle as jobs
from service.jobs import submit as submission
from service.jobs.terms import Terms
from service.store import shown
from service.wire import answers
from service.wire.states import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


LOCATION = {"description": "Path of the job.", "schema": {"type": "string"}}
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern="^[!-~]+$",
        description="A key of the client's choice: the same key and request again give the same job, not a second one.",
    ),
]


@router.post(
    "",
    status_code=202,
    response_model=answers.Job,
    summary="Submit a job",
    openapi_extra=SPEC_BODY,
    responses={202: {"headers": {"Location": LOCATION}}, **documented(403, 409, 413, 415, 422)},
)
def submit(
    services: ServicesOf,
    raw: RawSpec,
    idempotency_key: IdempotencyKey = None,
    priority: Annotated[Priority, Query()] = 0,
    time_limit: Annotated[TimeLimit, Query()] = None,
) -> Response:
    """Submits a job. Its spec is checked in full before it is accepted; then the job is stored, and trained as soon as
    the cluster has room."""
    job_id = submission.submit(services.store, raw, services.means(), idempotency_key, Terms(priority, time_limit))
    services.fleet.wake()
    return json_answer(translate.read_job(services, job_id), 202, {"Location": f"/v1/jobs/{job_id}"})


class JobFilter(BaseModel):
    """The query parameters of the list of jobs."""

    state: Annotated[list[JobState], BeforeValidator(split)] = Field(
        [], description="Only jobs in these states; repeated or comma separated."
    )
    model: Text | None = Field(None, description="Only jobs with this model.")
    dataset: Text | None = Field(None, description="Only jobs on this dataset.")
    name: Text | None = Field(None, description="Only jobs with this name; the whole name, exactly.")
    experiment: Text | None = Field(None, description="Only jobs of this experiment; its whole name, exactly.")
    limit: int = Field(50, ge=1, le=200, description="Most jobs on a page.")
    cursor: Text | None = Field(None, description="`next_cursor` of the page before; default: the first page.")


@router.get("", response_model=answers.JobPage, summary="List jobs, newest first", responses=documented(422))
def list_jobs(services: ServicesOf, query: Annotated[JobFilter, Query()]) -> Response:
    """Lists jobs that match, newest first. Pages stay put while new jobs arrive: a cursor means "older than this"."""
    with services.store.read() as session:
        page = shown.list_jobs(session, **query.model_dump())
        items = translate.jobs(session, page.items, services)
    return json_answer(answers.JobPage(items=items, next_cursor=page.next_cursor))


@router.get("/{job_id}", response_model=answers.Job, summary="Read a job", responses=documented(404, 422))
def read(services: ServicesOf, job_id: JobId) -> Response:
    """The job as it is now: what was asked for, its state, and the last recorded epoch of its first training."""
    return json_answer(translate.read_job(services, job_id))


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=documented(403, 404, 409, 415, 422))
def cancel(services: ServicesOf, job_id: JobId) -> answers.Job:
    """Asks for the end of the job. It becomes `cancelling`, and `cancelled` once Ray has confirmed its end. Asking
    again changes nothing. There is no body; the header `Content-Type: application/json` is wanted all the same, as with
    every request that changes something."""
    jobs.cancel(services.store, job_id)
    services.fleet.wake()
    return translate.read_job(services, job_id)
