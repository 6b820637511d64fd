"""Posts a worker's results to the API; spools them to disk while the API is away, and posts them in order later."""

import json
import logging
import os
import secrets
from pathlib import Path
from typing import Self

import httpx
from pydantic import TypeAdapter
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_before_delay, wait_exponential

from service.errors import FieldError, ForerunError, InvalidInput, RecordConflict, StaleAttempt
from service.wire.worker import Assignment, EpochRecord, Outcome, Receipt, TrialProgress, TrialRecord

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
PATIENCE_S = 3600.0  # how long the end of a training waits for an API that is away
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 15.0


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

    `pause_asked` is what the API last said: whether the attempt is to end behind the checkpoint of its newest report.
    """

    pause_asked = False

    def __init__(self, api_url: str, assignment: Assignment, spool: Path) -> None:
        self._job_id, self._spool = assignment.job_id, spool
        headers = {"Authorization": f"Bearer {assignment.report_token}"}
        self._client = httpx.Client(base_url=api_url, headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def epoch(self, record: EpochRecord) -> None:
        """Hand over the record of an epoch. An API that is away does not hold up the training; a refusal raises
        StaleAttempt, RecordConflict or InvalidInput."""
        self._hand_over("epochs", record)

    def trial(self, record: TrialRecord) -> None:
        """Hand over the beginning, or the end, of a trial. An API that is away does not hold up the training; a refusal
        raises StaleAttempt, RecordConflict or InvalidInput."""
        self._hand_over("trials", record)

    def _hand_over(self, kind: str, record: EpochRecord | TrialRecord) -> None:
        last = max((int(path.name.partition("-")[0]) for path in self.waiting()), default=0)
        self._write(f"{last + 1:09d}-{kind}.json", record.model_dump_json())
        try:
            self._drain()
        except ApiAway as error:
            log.warning("%s; training goes on, %d reports wait in %s", error, len(self.waiting()), self._spool)

    def progress(self) -> list[TrialProgress]:
        """Every trial of the job that has begun, as the API has it once all that waits is posted. Raises ApiAway when
        the API does not come back in time."""
        self.flush()
        answer = _patiently(_get, self._client, f"/internal/jobs/{self._job_id}/trials")
        return TypeAdapter(list[TrialProgress]).validate_json(answer.content)

    def flush(self) -> None:
        """Post all reports that wait. Raises ApiAway when the API does not come back in time; the files stay."""
        _patiently(self._drain)

    def outcome(self, outcome: Outcome) -> None:
        """Report how the attempt ended. Epochs that still wait are posted first: a failed job keeps those it
        finished."""
        try:
            self.flush()
        except (RecordConflict, InvalidInput) as error:
            log.error("%s; what waits in %s stays there", error, self._spool)
        _patiently(_post, self._client, f"/internal/jobs/{self._job_id}/outcome", outcome.model_dump_json())

    def _write(self, name: str, text: str) -> None:
        """Write a file whole or not at all, and to disk before the training goes on."""
        self._spool.mkdir(parents=True, exist_ok=True)
        unfinished = self._spool / f".{name}"
        with unfinished.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self._spool / name)

    def waiting(self) -> list[Path]:
        """The files of reports that the API does not have yet, oldest first."""
        return sorted(self._spool.glob("[!.]*.json"))

    def _drain(self) -> None:
        for path in self.waiting():
            kind = path.stem.partition("-")[2]
            answer = _post(self._client, f"/internal/jobs/{self._job_id}/{kind}", path.read_text())
            path.unlink()
            if answer.content:  # an API from before pauses has none
                self.pause_asked = Receipt.model_validate_json(answer.content).pause


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
