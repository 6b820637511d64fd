"""Reports a worker's results to the API. Records go to a spool on disk, and a thread posts them in order: an API that
is away, or slow, does not hold up the training. The same thread sends heartbeats."""

import json
import logging
import secrets
import threading
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Self

import httpx
from pydantic import TypeAdapter
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_before_delay, wait_exponential

from service.errors import FieldError, ForerunError, InvalidInput, RecordConflict, StaleAttempt
from service.wire.worker import Assignment, EpochRecord, Heartbeat, Outcome, Receipt, TrialProgress, TrialRecord
from workers.disk import until_written, write_whole

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
PATIENCE_S = 3600.0  # how long the end of a training waits for an API that is away
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 15.0
HEARTBEAT_S = 5.0  # between two heartbeats


class PauseAsked(Exception):
    """Somebody has asked for a pause of the job: the attempt ends in order, behind the checkpoint of its newest
    report."""


class ApiAway(ForerunError):
    """The API does not answer, or answers with an error of its own: asking again may help."""

    code, status, title = "api_away", 503, "The API cannot be reached"


_patiently = Retrying(  # while the API is away
    retry=retry_if_exception_type(ApiAway),
    wait=wait_exponential(FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
    stop=stop_before_delay(PATIENCE_S),
    before_sleep=before_sleep_log(log, logging.WARNING),
    reraise=True,
)


def exchange_ticket(api_url: str, job_id: str, ticket: str) -> Assignment:
    """Exchange the ticket for the job's spec, and what this draws as the report token: by that the API knows who asks
    again, should an answer be lost. Raises StaleAttempt when the attempt is not the live one, and ApiAway when the API
    does not come back in time."""
    body = json.dumps({"ticket": ticket, "report_token": secrets.token_urlsafe(32)})
    with httpx.Client(base_url=api_url, timeout=TIMEOUT_S, trust_env=False) as client:
        answer = _patiently(_post, client, f"/internal/jobs/{job_id}/ticket", body)
    return Assignment.model_validate_json(answer.content)


class Reporter:
    """Reports the results of one attempt to the API. Epochs and trials first go to the folder `spool`, one file each,
    and leave it when the API has them.

    Inside its `with` block a thread posts what waits, in order, and sends heartbeats with what `iterations` returns: a
    number that grows as the training gets on. While `iterations` is None another process trains, whose reporter posts
    what is in the spool: then this one's thread only tells what is waited for. `look`, where it is set, is asked for
    that before each heartbeat; what `waits_for` was told goes before.

    `pause_asked` is what the API last said: whether the attempt is to end behind the checkpoint of its newest report.
    """

    pause_asked = False

    def __init__(
        self, api_url: str, assignment: Assignment, spool: Path, iterations: Callable[[], int] | None = None
    ) -> None:
        self.iterations = iterations
        self.look: Callable[[], str | None] | None = None
        self._job_id, self._spool = assignment.job_id, spool
        headers = {"Authorization": f"Bearer {assignment.report_token}"}
        self._client = httpx.Client(base_url=api_url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        self._posting = threading.Lock()  # reports leave in their order, whoever posts them
        self._refusal: ForerunError | None = None
        self._reason: str | None = None  # why the training waits
        self._told: str | None = None  # what the API knows of that
        self._news, self._closing = threading.Event(), threading.Event()
        context = copy_context()  # the log's: which job it is about
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="reporter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._news.set()
        self._thread.join()
        self._client.close()

    def epoch(self, record: EpochRecord) -> None:
        """Hand over the record of an epoch; when this returns it is on the disk, and will be posted. Raises
        StaleAttempt, RecordConflict or InvalidInput where the API has refused an earlier report."""
        self._hand_over("epochs", record)

    def trial(self, record: TrialRecord) -> None:
        """Hand over the beginning, or the end, of a trial; when this returns it is on the disk, and will be posted.
        Raises StaleAttempt, RecordConflict or InvalidInput where the API has refused an earlier report."""
        self._hand_over("trials", record)

    def waits_for(self, reason: str | None) -> None:
        """Tell what keeps the training from getting on, in words; None: nothing any more."""
        self._reason = reason
        self._news.set()

    def waiting_epochs(self) -> int:
        """How many epochs that were handed over the API does not have yet."""
        return sum(_kind(path) == "epochs" for path in self.waiting())

    def waiting(self) -> list[Path]:
        """The files of reports that the API does not have yet, oldest first."""
        return sorted(self._spool.glob("[!.]*.json"))

    def progress(self) -> list[TrialProgress]:
        """Every trial of the job that has begun, as the API has it once all that waits is posted. Raises ApiAway when
        the API does not come back in time."""
        self.flush()
        answer = _patiently(_get, self._client, f"/internal/jobs/{self._job_id}/trials")
        return TypeAdapter(list[TrialProgress]).validate_json(answer.content)

    def flush(self) -> None:
        """Post all reports that wait. Raises ApiAway when the API does not come back in time, and StaleAttempt,
        RecordConflict or InvalidInput when it refuses one; the files stay."""
        _patiently(self.post_what_waits)

    def outcome(self, outcome: Outcome) -> None:
        """Report how the attempt ended. Epochs that still wait are posted first: a failed job keeps those it
        finished."""
        try:
            self.flush()
        except (RecordConflict, InvalidInput) as error:
            log.error("%s; what waits in %s stays there", error, self._spool)
        _patiently(_post, self._client, f"/internal/jobs/{self._job_id}/outcome", outcome.model_dump_json())

    def post_what_waits(self) -> None:
        """Post the reports that wait, once. Raises ApiAway at the first that the API does not take at present, and
        StaleAttempt, RecordConflict or InvalidInput at the first that it refuses."""
        with self._posting:
            for path in self.waiting():
                self._tell(_kind(path), path.read_text())
                path.unlink()

    def beat(self) -> None:
        """Send a heartbeat, where there is anything to tell. Raises StaleAttempt when the attempt is not the live
        one, and ApiAway."""
        reason = self._reason or (self.look() if self.look is not None else None)
        beat = Heartbeat(iterations=self.iterations and self.iterations(), waits_for=reason and reason[:1000])
        if beat.iterations is not None or beat.waits_for != self._told:
            self._tell("heartbeat", beat.model_dump_json())
            self._told = beat.waits_for

    def _tell(self, kind: str, document: str) -> None:
        answer = _post(self._client, f"/internal/jobs/{self._job_id}/{kind}", document)
        if answer.content:  # an API from before pauses has none
            self.pause_asked = Receipt.model_validate_json(answer.content).pause

    def _hand_over(self, kind: str, record: EpochRecord | TrialRecord) -> None:
        if self._refusal is not None:
            raise self._refusal
        last = max((int(path.name.partition("-")[0]) for path in self.waiting()), default=0)
        path, document = self._spool / f"{last + 1:09d}-{kind}.json", record.model_dump_json().encode()

        def write() -> None:
            self._spool.mkdir(parents=True, exist_ok=True)
            write_whole(path, document)

        until_written(write, self._spool, self.waits_for)
        self._news.set()

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._closing.is_set():
            self._news.clear()
            try:
                if self._refusal is None and self.iterations is not None:
                    self.post_what_waits()
                self.beat()
            except (StaleAttempt, RecordConflict, InvalidInput) as error:
                self._refusal = error  # raised at the next report, where the training can end in order
                if isinstance(error, StaleAttempt):
                    return
            except Exception as error:  # the API is away; the thread must outlive a spool that cannot be read, too
                if pause == FIRST_PAUSE_S:
                    unexpected = None if isinstance(error, ApiAway) else error
                    log.warning("%s; training goes on, reports wait in %s", error, self._spool, exc_info=unexpected)
                self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            pause = FIRST_PAUSE_S
            self._news.wait(HEARTBEAT_S)


def _kind(path: Path) -> str:
    """The kind of the report in a file of the spool, which is the last part of its route."""
    return path.stem.partition("-")[2]


def _post(client: httpx.Client, path: str, body: str) -> httpx.Response:
    return _ask(client, client.build_request("POST", path, content=body, headers={"Content-Type": "application/json"}))


def _get(client: httpx.Client, path: str) -> httpx.Response:
    return _ask(client, client.build_request("GET", path))


def _ask(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    try:
        answer = client.send(request)
    except httpx.TransportError as error:
        raise ApiAway(f"no answer from {client.base_url} ({type(error).__name__})") from error
    if answer.is_success:
        return answer
    if answer.status_code >= 500 or answer.status_code == 429:
        raise ApiAway(f"{client.base_url} answers {answer.status_code}")
    detail = _detail(answer)
    if answer.status_code in (401, 403, 404):
        raise StaleAttempt(detail)
    if answer.status_code == 409:
        raise RecordConflict(detail)
    raise InvalidInput([FieldError("body", None, detail)])


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.request.url.path} answers {answer.status_code}"
