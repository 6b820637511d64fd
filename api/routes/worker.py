"""The routes that the Ray job of an attempt calls: the worker's side, which is not part of the public API.

The ticket and the report token are secrets: they travel in the body and in a header, and no error repeats them.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import Field, ValidationError

from api.bodies import parsed, raw_body
from api.deps import JobId, ServicesOf
from service import metrics
from service.errors import FieldError, InvalidInput, StaleAttempt
from service.jobs import reports
from service.spec.types import Frozen
from service.wire.worker import Assignment, EpochRecord, Heartbeat, Outcome, Receipt, TrialProgress, TrialRecord

MAX_REPORT_BYTES = 2 * 1024 * 1024  # 900 branches take 200 KiB, telemetry with the most layers and samples 800 KiB

router = APIRouter(prefix="/internal/jobs/{job_id}", include_in_schema=False)


class Ticket(Frozen):
    """The body by which a worker exchanges its ticket."""

    ticket: str = Field(min_length=1, max_length=200)
    report_token: str | None = Field(None, min_length=43, max_length=200)  # 256 bits, drawn by the worker


async def _report_token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise StaleAttempt("a report needs the header Authorization: Bearer with the attempt's report token")
    return token


Body = Annotated[bytes, Depends(raw_body(MAX_REPORT_BYTES))]
ReportToken = Annotated[str, Depends(_report_token)]


@router.post("/ticket")
def ticket(services: ServicesOf, job_id: JobId, raw: Body) -> Assignment:
    """Exchange the attempt's ticket, once, for the job's spec and the report token; who sends that token with it may
    ask again. Raises StaleAttempt for any other ticket."""
    try:
        secrets = Ticket.model_validate_json(raw)
    except ValidationError:
        raise InvalidInput([FieldError("body", None, 'must be {"ticket": "…"}')]) from None
    with metrics.REPORT_SECONDS.labels("ticket").time():
        return reports.exchange_ticket(services.store, job_id, secrets.ticket, secrets.report_token)


@router.post("/epochs")
def epochs(services: ServicesOf, job_id: JobId, token: ReportToken, raw: Body) -> Receipt:
    """Record an epoch of the attempt, and answer whether the job is to pause. Raises InvalidInput, StaleAttempt or
    RecordConflict where it is refused."""
    with metrics.REPORT_SECONDS.labels("epoch").time():
        return reports.record_epoch(services.store, job_id, token, parsed(EpochRecord, raw))


@router.post("/trials")
def trials(services: ServicesOf, job_id: JobId, token: ReportToken, raw: Body) -> Receipt:
    """Record the beginning, a change or the end of a trial, and answer whether the job is to pause. Raises
    InvalidInput, StaleAttempt or RecordConflict where it is refused."""
    with metrics.REPORT_SECONDS.labels("trial").time():
        return reports.record_trial(services.store, job_id, token, parsed(TrialRecord, raw))


@router.get("/trials")
def progress(services: ServicesOf, job_id: JobId, token: ReportToken) -> list[TrialProgress]:
    """Every trial of the job that has begun, as far as it is recorded."""
    return reports.progress(services.store, job_id, token)


@router.post("/heartbeat")
def heartbeat(services: ServicesOf, job_id: JobId, token: ReportToken, raw: Body) -> Receipt:
    """Note how far the attempt is, and what it waits for; the answer says whether the job is to pause. Raises
    InvalidInput or StaleAttempt where it is refused."""
    return reports.heartbeat(services.store, job_id, token, parsed(Heartbeat, raw))


@router.post("/outcome", status_code=204)
def outcome(services: ServicesOf, job_id: JobId, token: ReportToken, raw: Body) -> None:
    """Record how the attempt ended, and wake the controller. Raises InvalidInput or StaleAttempt where it is
    refused."""
    with metrics.REPORT_SECONDS.labels("outcome").time():
        reports.finish(services.store, job_id, token, parsed(Outcome, raw))
    services.fleet.wake()
