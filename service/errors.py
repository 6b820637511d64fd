"""Every error Forerun raises on purpose.

ForerunError                      code                   status
├── InvalidInput                  invalid_input          422   one or more fields of a request are wrong
├── ContentTooLarge               content_too_large      413   the body of a request is too long
├── UnsupportedMediaType          unsupported_media_type 415
├── CrossSiteRequest              cross_site_request     403   a page of another site asks for a change
├── NotAuthenticated              not_authenticated      401   an API key is needed, and none that is valid was sent
├── NotAllowed                    not_allowed            403   the API key may not do this
├── TooManyRequests               too_many_requests      429   more in a while than the API key may send
├── NotFound                      not_found              404
│   └── NoWeights                 no_weights                   a training has left none, or they are gone
├── Conflict                                             409
│   ├── StateConflict             state_conflict               the job is not in a state that allows this
│   ├── IdempotencyConflict       idempotency_conflict         the key was used for another request
│   ├── NotEnoughWorkers          not_enough_workers           the cluster can never give that many
│   └── RecordConflict            record_conflict              a different record stands there already
├── StaleAttempt                  stale_attempt          403   the report token is not that of the live attempt
├── ClusterUnreachable            cluster_unreachable    503   Ray did not answer
├── DatabaseUnavailable           database_unavailable   503   the database is full, locked, away or damaged
├── TooManyStreams                too_many_streams       503   as many streams of events are open as there may be
├── TooExpensive                  too_expensive          422   a figure or forecast takes longer to compute than it may
├── TooBusy                       too_busy               503   too many figures and forecasts are asked for at a time
├── ComputationLost               computation_lost       503   the process that computed one has died
└── TrainingFailed                                       500   what ends a job as `failed`
    ├── DatasetMissing            dataset_missing              files absent, and where they were looked for
    ├── Diverged                  diverged                     non-finite in every branch, or in Main-train
    ├── OutOfMemory               out_of_memory                a GPU has too little for a worker's share
    ├── WorkerFailed              worker_failed                a worker died or raised
    └── AttemptsExhausted         attempts_exhausted           the last allowed attempt was lost

`status` is the HTTP status the API answers with; a code, once published, never changes its meaning.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

# A refusal is short, however long the request was: so many wrong fields are told one by one, and of each so many
# characters of its path, its value and the message.
MAX_ERRORS, MAX_FIELD, MAX_VALUE, MAX_MESSAGE = 20, 200, 400, 1000


class ForerunError(Exception):
    """An error that Forerun raises on purpose, with a sentence for the user in `detail`; class attributes say how the
    API answers."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of a request: its path (`lr_set.factors[2]`), the value given, and what to do."""

    field: str
    value: Any
    message: str


def in_lines(title: str, errors: Sequence[FieldError]) -> str:
    """A refusal as a person reads it: its title, and a line for each wrong field with its path, the value given where
    there is one, and what is wrong."""
    return "\n".join([f"{title}:", *map(_line, errors)])


def _line(error: FieldError) -> str:
    if error.message.startswith("Field required"):  # there is no value
        return f"  {error.field}: {error.message}"
    return f"  {error.field} = {json.dumps(error.value, ensure_ascii=False)}: {error.message}"


def shortened(text: str, length: int) -> str:
    """The text as it is where it has `length` characters at most, else its beginning and an ellipsis."""
    return text if len(text) <= length else text[:length] + "…"


def _told(errors: Sequence[FieldError]) -> str:
    """The errors in a sentence, which stays short however many and however long they are."""
    told = "; ".join(
        f"{shortened(error.field, MAX_FIELD)}: {shortened(error.message, MAX_MESSAGE)}" for error in errors[:MAX_ERRORS]
    )
    more = len(errors) - MAX_ERRORS
    return shortened(told, 4000) + (f"; and {more} more" if more > 0 else "")


class InvalidInput(ForerunError, ValueError):
    """One or more fields of a request are wrong; `errors` has an entry for each."""

    code, status, title = "invalid_input", 422, "Invalid input"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(_told(errors))
        self.errors = tuple(errors)

    def __reduce__(self) -> tuple[Any, ...]:  # Ray pickles what a worker raises
        return type(self), (self.errors,)


class ContentTooLarge(ForerunError):
    """The body of a request has more bytes than the API reads of it."""

    code, status, title = "content_too_large", 413, "Content too large"


class CrossSiteRequest(ForerunError):
    """A page of another site asks, by a user's browser, for a change."""

    code, status, title = "cross_site_request", 403, "Cross-site request"


class UnsupportedMediaType(ForerunError):
    """The body of a request is of a media type that the API does not read."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class NotAuthenticated(ForerunError):
    """The service asks for an API key, and the request has none that is valid."""

    code, status, title = "not_authenticated", 401, "No valid API key"


class NotAllowed(ForerunError):
    """The API key of a request does not reach as far as what was asked for."""

    code, status, title = "not_allowed", 403, "Not allowed"


class TooManyRequests(ForerunError):
    """An API key has sent more requests in a while than it may, or follows more streams at once."""

    code, status, title = "too_many_requests", 429, "Too many requests"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after  # seconds


class NotFound(ForerunError):
    """What a request asks for is not there."""

    code, status, title = "not_found", 404, "Not found"


def no_job(job_id: str) -> NotFound:
    """The error where there is no job of that id, or it is another owner's."""
    return NotFound(f"there is no job {job_id}; GET /v1/jobs lists the jobs")


class NoWeights(NotFound):
    """A training has left no weights, or they are gone; `errors` has the field of the request that leads nowhere."""

    code, title = "no_weights", "No weights"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(_told(errors))
        self.errors = tuple(errors)


class Conflict(ForerunError):
    """A request is well formed and cannot be fulfilled as things stand."""

    code, status, title = "conflict", 409, "Conflict"


class StateConflict(Conflict):
    """The job is not in a state that allows what was asked for."""

    code, title = "state_conflict", "Not possible in this state"


class IdempotencyConflict(Conflict):
    """The idempotency key of a request was used for another one before."""

    code, title = "idempotency_conflict", "Idempotency key used for another request"


class NotEnoughWorkers(Conflict):
    """The cluster can never give a job as many workers as it asks for."""

    code, title = "not_enough_workers", "More workers than the cluster has"


class RecordConflict(Conflict):
    """A record that a worker reports does not fit those that are there already."""

    code, title = "record_conflict", "A different record stands there already"


class StaleAttempt(ForerunError):
    """The ticket or report token of a worker is not that of the live attempt."""

    code, status, title = "stale_attempt", 403, "Not the live attempt"


class ClusterUnreachable(ForerunError):
    """Ray did not answer, answered nonsense, or refused us."""

    code, status, title = "cluster_unreachable", 503, "Ray cannot be reached"


class DatabaseUnavailable(ForerunError):
    """The database cannot be used at present: its disk is full, it is locked, damaged or away."""

    code, status, title = "database_unavailable", 503, "The database cannot be used"


class TooManyStreams(ForerunError):
    """As many streams of events are open as the service has room for."""

    code, status, title = "too_many_streams", 503, "Too many streams"


class TooExpensive(ForerunError):
    """A figure or a forecast takes longer to compute than it may."""

    code, status, title = "too_expensive", 422, "Too expensive"


class TooBusy(ForerunError):
    """As many figures and forecasts are computed, and wait to be, as the service has room for."""

    code, status, title = "too_busy", 503, "Too busy"


class ComputationLost(ForerunError):
    """The process that computed a figure or a forecast has died."""

    code, status, title = "computation_lost", 503, "Computation lost"


class TrainingFailed(ForerunError):
    """What ends a job as `failed`, with this code."""

    code, title = "training_failed", "Training failed"


class DatasetMissing(TrainingFailed):
    """The files of a dataset are absent; `detail` says where they were looked for."""

    code, title = "dataset_missing", "Dataset missing"


class Diverged(TrainingFailed):
    """The loss was not finite in every branch of a Pre-train, or in a Main-train."""

    code, title = "diverged", "Training diverged"


class OutOfMemory(TrainingFailed):
    """A GPU has too little memory for a worker's share of the batch."""

    code, title = "out_of_memory", "Out of memory"


class WorkerFailed(TrainingFailed):
    """A worker died, or raised an error of its own."""

    code, title = "worker_failed", "A worker failed"


class AttemptsExhausted(TrainingFailed):
    """The last attempt that a job is allowed was lost."""

    code, title = "attempts_exhausted", "Every attempt was lost"
