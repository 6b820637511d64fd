"""The Python client of the service. Its errors are in forerun/errors.py."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from httpx_sse import SSEError, connect_sse
from pydantic import BaseModel, ValidationError

from forerun.errors import ApiError, JobFailed, ServiceUnreachable, raise_unless_succeeded
from forerun.jobs import JobHandle, Rows
from forerun.program import program
from service.spec.job import JobSpec
from service.wire.answers import (
    Answer,
    BatchRamp,
    BranchOfEpoch,
    ComparedRun,
    Epoch,
    Event,
    ExperimentFacts,
    ExperimentJobs,
    HistoryStep,
    Job,
    JobSchedule,
    LayerEpoch,
    LrStep,
    Plan,
    Recommendation,
    SelectorReplay,
    StateEvent,
    StudyRow,
    TrialResult,
    parse_event,
)
from service.wire.states import TERMINAL

__all__ = ["DEFAULT_URL", "ApiError", "Client", "JobFailed", "ServiceUnreachable", "raise_unless_succeeded"]

DEFAULT_URL = "http://127.0.0.1:8000"
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0)  # seconds before each retry: a restart of the service takes 20
RETRIES = 2  # of a single request; the stream of events takes all of PAUSES
A = TypeVar("A", bound=BaseModel)
Row = TypeVar("Row", bound=Answer)
SILENCE_S = 60.0  # without a byte, a stream of events is dead: the service sends something every 15 s


class Client:
    """A connection to the service at `base_url`; close it, or use it in a `with`.

    Every method raises `ApiError` when the service refuses and `ServiceUnreachable` when it does not answer. A request
    whose answer was lost is sent again, at growing intervals: every call of the API may be repeated. `timeout` is in
    seconds, of one try. `ValueError` when `base_url` is not an http URL.

    Answers are read-only pydantic models (service/wire/answers). Fields that only a newer service knows are left out.
    """

    def __init__(
        self, base_url: str = DEFAULT_URL, timeout: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"{base_url!r} is not the URL of a service; write it like {DEFAULT_URL}")
        self.base_url = base_url
        self._timeout = timeout
        # trust_env: no proxy and no .netrc between us and the address that we were given
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    # --- jobs ----------------------------------------------------------------------------------------

    def submit(self, spec: JobSpec | Mapping[str, Any], idempotency_key: str | None = None) -> JobHandle:
        """Submit a job. The same key and spec again give the same job; without a key, each call has its own."""
        document = spec.model_dump_json() if isinstance(spec, JobSpec) else json.dumps(dict(spec))
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key or uuid4().hex}
        return JobHandle(self, self._one(Job, "POST", "/v1/jobs", headers=headers, content=document))

    def job(self, job_id: str) -> JobHandle:
        """A handle of the job, with what the service says of it now."""
        return JobHandle(self, self.read_job(job_id))

    def read_job(self, job_id: str) -> Job:
        """What the service says of the job now."""
        return self._one(Job, "GET", _path(job_id))

    def jobs(
        self,
        *,
        state: str | Sequence[str] = (),
        model: str | None = None,
        dataset: str | None = None,
        name: str | None = None,
        experiment: str | None = None,
        page_size: int = 50,
    ) -> Iterator[Job]:
        """Jobs that match, newest first; pages are fetched as they are needed."""
        params: dict[str, Any] = {"state": state, "model": model, "dataset": dataset, "limit": page_size}
        params |= {"name": name, "experiment": experiment}
        return self._pages(Job, "/v1/jobs", {key: value for key, value in params.items() if value})

    def cancel(self, job_id: str) -> Job:
        """Ask for the job's end; it is `cancelled` once Ray has confirmed it. Asking again changes nothing."""
        return self._one(Job, "POST", _path(job_id, "cancel"))

    def logs(self, job_id: str, attempt: int | None = None) -> str:
        """The last 65,536 characters that an attempt of the job printed; of the newest one unless said otherwise."""
        params = {} if attempt is None else {"attempt": attempt}
        return self._answer("GET", _path(job_id, "logs"), params=params).text

    def wait(self, job_id: str) -> Job:
        """The job, once it has ended: succeeded, failed or cancelled."""
        for _ in self.events(job_id):
            pass
        return self.read_job(job_id)

    # --- what its training did -----------------------------------------------------------------------

    def epochs(self, job_id: str) -> Rows[Epoch]:
        """Every recorded epoch of the job."""
        return self._rows(Epoch, _path(job_id, "epochs"))

    def branches(self, job_id: str, epoch: int | None = None) -> Rows[BranchOfEpoch]:
        """Every branch of every Pre-train, or of one epoch's."""
        params = {} if epoch is None else {"epoch": epoch}
        return self._rows(BranchOfEpoch, _path(job_id, "branches"), params=params)

    def lr_history(self, job_id: str) -> Rows[LrStep]:
        """The learning rate of every epoch."""
        return self._rows(LrStep, _path(job_id, "lr-history"), params={"format": "json"})

    def lr_history_csv(self, job_id: str) -> str:
        """The same as CSV, with a header line; the candidates share one cell, separated by spaces."""
        return self._answer("GET", _path(job_id, "lr-history"), params={"format": "csv"}).text

    def schedule(self, job_id: str, *, method: str | None = None, trial: int = 1) -> JobSchedule:
        """The learning rates of a trial that has ended, for `forerun.schedules.Replay`."""
        params = {"trial": trial} | ({} if method is None else {"method": method})
        return self._one(JobSchedule, "GET", _path(job_id, "schedule"), params=params)

    def selector_replay(self, job_id: str, selector: str, **options: float) -> SelectorReplay:
        """What another selector would have chosen at each epoch, from the stored branches."""
        params = {"selector": selector, **options}
        return self._one(SelectorReplay, "GET", _path(job_id, "selector-replay"), params=params)

    def layers(
        self,
        job_id: str,
        *,
        method: str | None = None,
        trial: int | None = None,
        layer: str | None = None,
        first_epoch: int | None = None,
        last_epoch: int | None = None,
        page_size: int = 100,
    ) -> Iterator[LayerEpoch]:
        """Telemetry of a job's layers, by method, trial, epoch and layer; pages are fetched as they are needed."""
        params: dict[str, Any] = {"method": method, "trial": trial, "layer": layer, "first_epoch": first_epoch}
        params |= {"last_epoch": last_epoch, "limit": page_size, "format": "json"}
        params = {key: value for key, value in params.items() if value is not None}
        return self._pages(LayerEpoch, _path(job_id, "layers"), params)

    def layers_figure(self, job_id: str, kind: str, **filters: str | int | None) -> bytes:
        """The layers of one training over its steps, as png or svg; `filters` as those of `layers`."""
        params = {key: value for key, value in {**filters, "format": kind}.items() if value is not None}
        return self._answer("GET", _path(job_id, "layers"), params=params).content

    # --- methods side by side, and all jobs together ----------------------------------------------------

    def trials(self, job_id: str, *, method: str | None = None, state: str | Sequence[str] = ()) -> Rows[TrialResult]:
        """Every training of every method of the job, or of one method, or in these states."""
        params = {key: value for key, value in {"method": method, "state": state}.items() if value}
        return self._rows(TrialResult, _path(job_id, "trials"), params=params)

    def comparison(self, job_id: str) -> Rows[ComparedRun]:
        """What each method of the job came to, and what it took."""
        params = {"format": "json"}
        return self._rows(ComparedRun, _path(job_id, "comparison"), params=params)

    def comparison_file(self, job_id: str, kind: str) -> bytes:
        """The same as a file: csv, a line a method; png or svg, a figure of accuracy over cost."""
        return self._answer("GET", _path(job_id, "comparison"), params={"format": kind}).content

    def study(self, job_id: str) -> Rows[StudyRow]:
        """What each variant of the job's study came to at each batch size."""
        return self._rows(StudyRow, _path(job_id, "study"), params={"format": "json"})

    def study_file(self, job_id: str, kind: str) -> bytes:
        """The same as a file: csv; png or svg, a figure of accuracy over epochs and batch size."""
        return self._answer("GET", _path(job_id, "study"), params={"format": kind}).content

    def study_of_experiment(self, experiment: str) -> Rows[StudyRow]:
        """The studies of all jobs of the experiment as one."""
        params = {"experiment": experiment, "format": "json"}
        return self._rows(StudyRow, "/v1/study", params=params)

    def study_of_experiment_file(self, experiment: str, kind: str) -> bytes:
        """The same as a file: csv, png or svg."""
        return self._answer("GET", "/v1/study", params={"experiment": experiment, "format": kind}).content

    def ramp(self, job_id: str) -> Rows[BatchRamp]:
        """The largest batches of the job's batch ramp, seed by seed."""
        return self._rows(BatchRamp, _path(job_id, "ramp"))

    def history(
        self,
        *,
        model: str | None = None,
        dataset: str | None = None,
        optimizer: str | None = None,
        batch: int | None = None,
        method: str | None = None,
        state: str | Sequence[str] = (),
        page_size: int = 500,
    ) -> Iterator[HistoryStep]:
        """Every epoch of all jobs that match, newest jobs first; pages are fetched as they are needed."""
        params: dict[str, Any] = {"model": model, "dataset": dataset, "optimizer": optimizer, "batch": batch}
        params |= {"method": method, "state": state, "limit": page_size, "format": "json"}
        return self._pages(HistoryStep, "/v1/lr-history", {key: value for key, value in params.items() if value})

    def recommendation(
        self,
        model: str,
        dataset: str,
        *,
        batch: int | None = None,
        optimizer: str | None = None,
        path: str | None = None,
    ) -> Recommendation:
        """The learning rate to begin with, by what past jobs chose. `path`: the folder, of an image-folder."""
        params = {"model": model, "dataset": dataset, "batch": batch, "optimizer": optimizer, "path": path}
        params = {key: value for key, value in params.items() if value is not None}
        return self._one(Recommendation, "GET", "/v1/recommendation", params=params)

    # --- before a job, and many of them ------------------------------------------------------------------

    def plan(self, spec: JobSpec | Mapping[str, Any]) -> Plan:
        """What a spec amounts to in iterations and samples; nothing starts."""
        document = spec.model_dump_json() if isinstance(spec, JobSpec) else json.dumps(dict(spec))
        headers = {"Content-Type": "application/json"}
        return self._one(Plan, "POST", "/v1/plan", headers=headers, content=document)

    def experiments(self) -> Rows[ExperimentFacts]:
        """The studies that can be run."""
        return self._rows(ExperimentFacts, "/v1/experiments")

    def run_experiment(self, name: str, scale: str = "fashion-mnist", /, **spec: Any) -> ExperimentJobs:
        """Submit the jobs of a study; `spec`: keys of a JobSpec that hold for all of them."""
        # chosen here: a request that is sent again finds its jobs
        group = f"{name}-{uuid4().hex[:8]}"
        document = json.dumps({"name": name, "scale": scale, "spec": spec, "experiment": group})
        headers = {"Content-Type": "application/json"}
        return self._one(ExperimentJobs, "POST", "/v1/experiments", headers=headers, content=document)

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """What happens to the job, as it happens, from event number `after` + 1 to that of its terminal state.

        A stream that breaks is taken up again behind the last event, so none is lost and none comes twice; raises
        when the service has not come back after all of PAUSES.
        """
        self.read_job(job_id)  # no service there, or no such job: that is told at once, below it would be waited for
        last, lost = after, 0
        while True:
            try:
                for event in self._stream(job_id, last):
                    last, lost = event.number, 0
                    yield event
                return
            except (ServiceUnreachable, ApiError) as error:
                if error.status < 500 or lost == len(PAUSES):
                    raise
            time.sleep(PAUSES[lost])
            lost += 1

    def _stream(self, job_id: str, after: int) -> Iterator[Event]:
        """The events of one connection. Returns after the last event that the job will ever have, else raises."""
        timeout = httpx.Timeout(self._timeout, read=SILENCE_S)
        headers = {"Last-Event-ID": str(after)}
        try:
            with connect_sse(self._http, "GET", _path(job_id, "events"), headers=headers, timeout=timeout) as source:
                response = source.response
                if response.status_code == 204:
                    return  # the job has ended, and `after` was its last event
                if not response.is_success:
                    response.read()
                    raise ApiError.of(response)
                for sent in source.iter_sse():
                    if not sent.data:
                        continue  # a sign of life
                    event = parse_event(sent.data)
                    yield event
                    if isinstance(event, StateEvent) and event.state in TERMINAL:
                        return
        except (SSEError, ValidationError, json.JSONDecodeError):
            raise ApiError.unexpected(response, "with something other than events") from None
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        raise self._unreachable("it ended the stream of events")

    # --- shared --------------------------------------------------------------------------------------

    def _one(self, model: type[A], method: str, path: str, **request: Any) -> A:
        """The answer as a model; fields that only a newer service knows are left out."""
        response = self._answer(method, path, **request)
        return self._read(model, response, _document(response))

    def _rows(self, model: type[Row], path: str, **request: Any) -> Rows[Row]:
        response = self._answer("GET", path, **request)
        return Rows(self._items(model, response, _document(response)))

    def _pages(self, model: type[Row], path: str, params: Mapping[str, Any]) -> Iterator[Row]:
        """The items of all pages; a page is fetched when it is needed."""
        while True:
            response = self._answer("GET", path, params=params)
            page = _document(response)
            yield from self._items(model, response, page)
            if page.get("next_cursor") is None:
                return
            params = {**params, "cursor": page["next_cursor"]}

    def _items(self, model: type[Row], response: httpx.Response, document: Any) -> list[Row]:
        try:
            return [self._read(model, response, item) for item in document["items"]]
        except (LookupError, TypeError):
            raise ApiError.unexpected(response, "with something other than a list") from None

    @staticmethod
    def _read(model: type[A], response: httpx.Response, document: Any) -> A:
        try:
            return model.model_validate(document, extra="ignore")
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) or model.__name__ for e in error.errors())
            raise ApiError.unexpected(response, f"with a {model.__name__} that is not one ({fields})") from None

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer, which is a success."""
        for pause in (*PAUSES[:RETRIES], None):
            try:
                response = self._http.request(method, path, **request)
            except httpx.RequestError as error:
                # Nobody listens: no use in asking again. Anything else may have cost us the answer alone.
                if pause is None or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    raise self._unreachable(error) from error
                time.sleep(pause)
            else:
                break
        if not response.is_success:
            raise ApiError.of(response)
        return response

    def _unreachable(self, why: object) -> ServiceUnreachable:
        return ServiceUnreachable(
            f"no answer from {self.base_url} ({str(why) or type(why).__name__}); start the service with "
            f"`{program()} serve`, or, if it runs elsewhere, give its URL with --url or FORERUN_URL"
        )


def _path(job_id: str, *more: str) -> str:
    return "/".join(["/v1/jobs", quote(job_id, safe=""), *more])


def _document(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ApiError.unexpected(response, "with something other than JSON") from None
