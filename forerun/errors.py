"""The errors that the client raises when it asks the service.

ForerunError
├── ServiceUnreachable   nothing answers, or the connection was lost and did not come back
├── ApiError             the service refused: its code, status, detail and field errors
└── JobFailed            a job ended, but did not succeed
"""

from collections.abc import Sequence
from typing import Self

import httpx

from service.errors import FieldError, ForerunError, in_lines
from service.wire.answers import Job


class ServiceUnreachable(ForerunError):
    """Nothing answers at the service's URL, or the connection was lost and did not come back."""

    code, status, title = "service_unreachable", 503, "The service cannot be reached"


class JobFailed(ForerunError):
    """The job has ended, but did not succeed."""

    code, title = "job_failed", "The job did not succeed"


class ApiError(ForerunError):
    """The service has refused a request. `code` is stable (service/errors.py), `errors` has one entry for each wrong
    field, and `more_errors` says how many wrong fields it leaves out."""

    # The service has a class for each code; here one class carries any of them.
    code: str  # type: ignore[misc]
    status: int  # type: ignore[misc]
    title: str  # type: ignore[misc]

    def __init__(
        self, status: int, code: str, title: str, detail: str, errors: Sequence[FieldError] = (), more_errors: int = 0
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.title, self.errors = status, code, title, tuple(errors)
        self.more_errors = more_errors

    def __str__(self) -> str:
        """The detail, or one line for each wrong field (its path, the value given, what is wrong) and how many more
        there are."""
        if not self.errors:
            return self.detail
        told = in_lines(self.title, self.errors)
        return f"{told}\n  and {self.more_errors} more" if self.more_errors else told

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """The error that an answer tells, which must have been read in full: a problem document (RFC 9457), or what
        something other than the service sent."""
        try:
            problem = response.json()
            errors = [FieldError(e["field"], e["value"], e["message"]) for e in problem.get("errors", [])]
            more_errors = problem.get("more_errors", 0)
            return cls(response.status_code, problem["code"], problem["title"], problem["detail"], errors, more_errors)
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls.unexpected(response, f"{response.status_code} {response.reason_phrase}".strip())

    @classmethod
    def unexpected(cls, response: httpx.Response, what: str) -> Self:
        """The error of an answer that the service would not give; `what` says how it answered."""
        detail = f"{response.url} answered {what}, which is not what Forerun would say; is this the service's URL?"
        return cls(response.status_code, "unexpected_answer", "Unexpected answer", detail)


def raise_unless_succeeded(job: Job) -> None:
    """Raise JobFailed, saying why, when a job that has ended did not succeed."""
    if job.state != "succeeded":
        why = f" ({job.error.code}): {job.error.message}" if job.error else ""
        raise JobFailed(f"{job.id} {'was ' if job.state == 'cancelled' else ''}{job.state}{why}")
