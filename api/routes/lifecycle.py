"""The routes that change how a job goes on: other terms, pause, resume, retry, deletion."""

from fastapi import APIRouter, Response

from api import translate
from api.bodies import described_body, parsed
from api.deps import JobId, ServicesOf
from api.problems import documented
from api.routes.jobs import LOCATION, IdempotencyKey
from api.specs import RawSpec
from api.terms import TermsChange
from service.jobs import deletion
from service.jobs import pause as pauses
from service.jobs import retry as retries
from service.jobs.terms import change_terms
from service.wire import answers

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@router.patch(
    "",
    summary="Change a job's priority or time limit",
    openapi_extra=described_body("TermsChange"),
    responses=documented(403, 404, 409, 413, 415, 422),
)
def change(services: ServicesOf, job_id: JobId, raw: RawSpec) -> answers.Job:
    """Changes the terms of a job that has not ended. A priority decides which job is submitted next; it stops none that
    runs."""
    change_terms(services.store, job_id, parsed(TermsChange, raw).model_dump(exclude_unset=True))
    services.fleet.wake()
    return translate.read_job(services, job_id)


@router.post("/pause", status_code=202, summary="Pause a job", responses=documented(403, 404, 409, 415, 422))
def pause(services: ServicesOf, job_id: JobId) -> answers.Job:
    """Asks for a pause. A job that trains becomes `pausing`, and `paused` behind its next epoch, a search behind the
    next report of a trial, once Ray has confirmed its end; a job that waits is `paused` at once. Asking again changes
    nothing."""
    pauses.pause(services.store, job_id)
    services.fleet.wake()
    return translate.read_job(services, job_id)


@router.post("/resume", status_code=202, summary="Resume a paused job", responses=documented(403, 404, 409, 415, 422))
def resume(services: ServicesOf, job_id: JobId) -> answers.Job:
    """Lets a paused job go on: it is `queued`, and its next attempt goes on from its newest checkpoints, as if it had
    never been paused. Asking again changes nothing."""
    pauses.resume(services.store, job_id)
    services.fleet.wake()
    return translate.read_job(services, job_id)


@router.post(
    "/retry",
    status_code=202,
    summary="Retry a job that failed or was cancelled",
    responses={202: {"headers": {"Location": LOCATION}}, **documented(403, 404, 409, 415, 422)},
)
def retry(
    services: ServicesOf, job_id: JobId, response: Response, idempotency_key: IdempotencyKey = None
) -> answers.Job:
    """Submits a new job that goes on where this one ended: with its spec and its terms, its recorded epochs and its
    newest checkpoints. The job itself stays as it is. The new one's losses and its running time count from zero."""
    retry_id = retries.retry(services.store, job_id, idempotency_key)
    services.fleet.wake()
    response.headers["Location"] = f"/v1/jobs/{retry_id}"
    return translate.read_job(services, retry_id)


@router.delete("", status_code=204, summary="Delete a job", responses=documented(403, 404, 409, 415, 422))
def delete(services: ServicesOf, job_id: JobId) -> None:
    """Deletes a job that has ended: all that is recorded of it, its checkpoints and logs, and its idempotency key.
    Asking again changes nothing."""
    deletion.delete_job(services.store, job_id, services.storage_dir)
