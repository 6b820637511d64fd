"""What can go wrong when the client asks the service.

ForerunError
├── ServiceUnreachable   nothing answers, or the connection was lost and did not come back
├── ApiError             the service refused: its code, status, detail and field errors
└── JobFailed            a job ended, but did not succeed
"""

import json
from collections.abc import Sequence
from typing import Self

import httpx

from service.errors import FieldError, ForerunError
from service.wire.answers import Job


class ServiceUnreachable(ForerunError):
    code, status, title = "service_unreachable", 503, "The service cannot be reached"


class JobFailed(ForerunError):
    code, title = "job_failed", "The job did not succeed"


class ApiError(ForerunError):
    """The service refused. `code` is stable (service/errors.py), `errors` has one entry a wrong field."""

    # The service has a class for each code; here one class carries any of them.
    code: str  # type: ignore[misc]
    status: int  # type: ignore[misc]
    title: str  # type: ignore[misc]

    def __init__(self, status: int, code: str, title: str, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.status, self.code, self.title, self.errors = status, code, title, tuple(errors)

    def __str__(self) -> str:
        """The detail, or one line a wrong field: its path, the value given, what is wrong."""
        return "\n".join([f"{self.title}:", *map(_line, self.errors)]) if self.errors else self.detail

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """From an answer that was read in full: a problem document (RFC 9457), or what something else sent."""
        try:
            problem = response.json()
            errors = [FieldError(e["field"], e["value"], e["message"]) for e in problem.get("errors", [])]
            return cls(response.status_code, problem["code"], problem["title"], problem["detail"], errors)
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls.unexpected(response, f"{response.status_code} {response.reason_phrase}".strip())

    @classmethod
    def unexpected(cls, response: httpx.Response, what: str) -> Self:
        detail = f"{response.url} answered {what}, which is not what Forerun would say; is this the service's URL?"
        return cls(response.status_code, "unexpected_answer", "Unexpected answer", detail)


def _line(error: FieldError) -> str:
    if error.message.startswith("Field required"):  # there is no value
        return f"  {error.field}: {error.message}"
    return f"  {error.field} = {json.dumps(error.value, ensure_ascii=False)}: {error.message}"


def raise_unless_succeeded(job: Job) -> None:
    """Raise JobFailed, saying why, when a job that has ended did not succeed."""
    if job.state != "succeeded":
        why = f" ({job.error.code}): {job.error.message}" if job.error else ""
        raise JobFailed(f"{job.id} {'was ' if job.state == 'cancelled' else ''}{job.state}{why}")
