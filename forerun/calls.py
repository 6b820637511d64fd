"""Every call of the service's API, written once as a coroutine: `AsyncClient` is these, `Client` the same without an
event loop."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from forerun.download import save
from forerun.exchange import Exchange
from forerun.jobs import AsyncJobHandle
from forerun.rows import Rows
from service.spec.job import JobSpec
from service.wire.answers import (
    ApiKey,
    BatchRamp,
    BranchOfEpoch,
    ComparedRun,
    Decisions,
    Epoch,
    Event,
    ExperimentFacts,
    ExperimentJobs,
    HistoryStep,
    Job,
    JobSchedule,
    LayerEpoch,
    Login,
    LrStep,
    NewApiKey,
    NewWebhook,
    Plan,
    Recommendation,
    Scope,
    SelectorReplay,
    StudyRow,
    TrialResult,
    Webhook,
    WebhookTest,
)
from service.wire.checkpoint import Which
from service.wire.webhooks import EventType

JSON = {"Content-Type": "application/json"}


class Calls:
    """Every call of the service's API, as a coroutine over an `Exchange`; its docstring says what each of them may
    raise."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def close(self) -> None:
        """Close the connection."""
        await self._exchange.connection.close()

    # --- jobs ----------------------------------------------------------------------------------------

    async def submit(
        self,
        spec: JobSpec | Mapping[str, Any],
        idempotency_key: str | None = None,
        *,
        priority: int = 0,
        time_limit: int | None = None,
    ) -> AsyncJobHandle:
        """Submit a job. The same key and spec again give the same job; without a key, each call has its own.

        `priority`: from -100 to 100; higher ones are submitted first. `time_limit`: seconds that its attempts may take
        together, None for no limit.
        """
        headers = JSON | {"Idempotency-Key": idempotency_key or uuid4().hex}
        params = _given(priority=priority or None, time_limit=time_limit)
        job = await self._exchange.one(Job, "POST", "/v1/jobs", headers=headers, params=params, content=_as_json(spec))
        return AsyncJobHandle(self, job)

    async def job(self, job_id: str) -> AsyncJobHandle:
        """A handle of the job of this id, with what the service says of it now."""
        return AsyncJobHandle(self, await self.read_job(job_id))

    async def read_job(self, job_id: str) -> Job:
        """What the service says of the job now: its spec, its state, and how far it has come."""
        return await self._exchange.one(Job, "GET", _path(job_id))

    def jobs(
        self,
        *,
        state: str | Sequence[str] = (),
        model: str | None = None,
        dataset: str | None = None,
        name: str | None = None,
        experiment: str | None = None,
        page_size: int = 50,
    ) -> AsyncGenerator[Job, None]:
        """Jobs that match, newest first; pages are fetched as they are needed."""
        params: dict[str, Any] = {"state": state, "model": model, "dataset": dataset, "limit": page_size}
        params |= {"name": name, "experiment": experiment}
        return self._exchange.pages(Job, "/v1/jobs", {key: value for key, value in params.items() if value})

    async def cancel(self, job_id: str) -> Job:
        """Ask the service to end the job, and return the job as it is then. It is `cancelled` once Ray has confirmed
        its end; asking again changes nothing."""
        return await self._exchange.one(Job, "POST", _path(job_id, "cancel"), headers=JSON)

    async def pause(self, job_id: str) -> Job:
        """Ask for a pause of the job, and return the job as it is then. It is `paused` behind its next epoch, or at
        once where it waits; asking again changes nothing."""
        return await self._exchange.one(Job, "POST", _path(job_id, "pause"), headers=JSON)

    async def resume(self, job_id: str) -> Job:
        """Let a paused job go on from its newest checkpoints, and return the job as it is then; asking again changes
        nothing."""
        return await self._exchange.one(Job, "POST", _path(job_id, "resume"), headers=JSON)

    async def change(self, /, job_id: str, **terms: int | None) -> Job:
        """Change the terms of a job that has not ended, and return the job as it is then: `priority`, from -100 to 100,
        or `time_limit`, in seconds, None for no limit."""
        return await self._exchange.one(Job, "PATCH", _path(job_id), headers=JSON, content=json.dumps(terms))

    async def retry(self, job_id: str, idempotency_key: str | None = None) -> AsyncJobHandle:
        """Submit a new job that goes on from the last checkpoints of one that failed or was cancelled. The same key
        again gives the same job; without a key, each call has its own."""
        headers = JSON | {"Idempotency-Key": idempotency_key or uuid4().hex}
        return AsyncJobHandle(self, await self._exchange.one(Job, "POST", _path(job_id, "retry"), headers=headers))

    async def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with all that is recorded of it, its checkpoints and its logs."""
        await self._exchange.answer("DELETE", _path(job_id), headers=JSON)

    async def logs(self, job_id: str, attempt: int | None = None) -> str:
        """The last 65,536 characters that an attempt of the job has printed; without `attempt`, the newest one."""
        return (await self._exchange.answer("GET", _path(job_id, "logs"), params=_given(attempt=attempt))).text

    async def wait(self, job_id: str) -> Job:
        """Wait until the job has ended (succeeded, failed or cancelled), and return it."""
        async for _ in self.events(job_id):
            pass
        return await self.read_job(job_id)

    async def events(self, job_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yield what happens to the job, as it happens, from event number `after` + 1 to that of its terminal state.

        A stream that breaks is taken up again behind the last event, so none is lost and none comes twice. Raises when
        the service has not come back after all of `forerun.exchange.PAUSES`.
        """
        await self.read_job(job_id)  # no service there, or no such job: that is told at once, below it is waited for
        async with aclosing(self._exchange.events(_path(job_id, "events"), after)) as events:
            async for event in events:
                yield event

    # --- what its training did -----------------------------------------------------------------------

    async def epochs(self, job_id: str) -> Rows[Epoch]:
        """Every recorded epoch of the job, by run, trial and epoch."""
        return await self._exchange.rows(Epoch, _path(job_id, "epochs"))

    async def branches(self, job_id: str, epoch: int | None = None) -> Rows[BranchOfEpoch]:
        """Every branch of every Pre-train of the job, or with `epoch` those of the Pre-trains of that epoch."""
        return await self._exchange.rows(BranchOfEpoch, _path(job_id, "branches"), params=_given(epoch=epoch))

    async def lr_history(self, job_id: str) -> Rows[LrStep]:
        """The learning rate of every epoch of the job, with the candidates it was chosen from."""
        return await self._exchange.rows(LrStep, _path(job_id, "lr-history"), params={"format": "json"})

    async def lr_history_csv(self, job_id: str) -> str:
        """The learning rate of every epoch of the job as CSV, with a header line; the candidates share one cell,
        separated by spaces."""
        return (await self._exchange.answer("GET", _path(job_id, "lr-history"), params={"format": "csv"})).text

    async def schedule(self, job_id: str, *, label: str | None = None, trial: int = 1) -> JobSchedule:
        """The learning rates of a trial that has ended, as a schedule for `forerun.schedules.Replay`; by default of the
        first trial of the job's first run."""
        params = _given(trial=trial, label=label)
        return await self._exchange.one(JobSchedule, "GET", _path(job_id, "schedule"), params=params)

    async def download_weights(
        self, job_id: str, path: str | Path, *, which: Which = "best", label: str | None = None, trial: int = 1
    ) -> Path:
        """Save the weights of a training (by default the first of the job's first run) as a safetensors file.

        `which`: those after the epoch with the best validation accuracy, or after the last one. The file appears under
        `path`, which is returned, once it is whole and its SHA-256 is right; one that is there already is replaced.
        """
        params = _given(which=which, trial=trial, label=label)
        return await save(self._exchange, _path(job_id, "weights"), params, Path(path))

    async def selector_replay(
        self, job_id: str, selector: str, *, tolerance: float | None = None, label: str | None = None
    ) -> SelectorReplay:
        """What another selector would have chosen at each epoch of each trial of a run of stpt (by default of the job's
        first), from the stored branches."""
        params = _given(selector=selector, tolerance=tolerance, label=label)
        return await self._exchange.one(SelectorReplay, "GET", _path(job_id, "selector-replay"), params=params)

    async def decisions(self, job_id: str, *, label: str | None = None, trial: int = 1) -> Decisions:
        """How each epoch of a training by stpt or autolrs came to its learning rate, with the candidates, the numbers
        of the rule, what other selectors of stpt would have chosen, and warnings; by default of the first trial of the
        job's first run of stpt, or without stpt of autolrs."""
        params = _given(trial=trial, label=label, format="json")
        return await self._exchange.one(Decisions, "GET", _path(job_id, "decisions"), params=params)

    async def decisions_figure(self, job_id: str, kind: str, *, label: str | None = None, trial: int = 1) -> bytes:
        """A figure of the choices of a training by stpt or autolrs, as a file of the kind png or svg."""
        params = _given(trial=trial, label=label, format=kind)
        return (await self._exchange.answer("GET", _path(job_id, "decisions"), params=params)).content

    def layers(
        self,
        job_id: str,
        *,
        label: str | None = None,
        trial: int | None = None,
        layer: str | None = None,
        first_epoch: int | None = None,
        last_epoch: int | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[LayerEpoch, None]:
        """Yield the telemetry of a job's layers, by run, trial, epoch and layer; pages are fetched as they are needed.
        Each filter leaves out what does not match; `layer` is a whole name."""
        epochs = {"first_epoch": first_epoch, "last_epoch": last_epoch}
        params = _given(label=label, trial=trial, layer=layer, **epochs, limit=page_size, format="json")
        return self._exchange.pages(LayerEpoch, _path(job_id, "layers"), params)

    async def layers_figure(self, /, job_id: str, kind: str, **filters: str | int | None) -> bytes:
        """A figure of the layers of one training over its steps, as a file of the kind png or svg; `filters` are those
        of `layers`."""
        params = _given(**filters | {"format": kind})
        return (await self._exchange.answer("GET", _path(job_id, "layers"), params=params)).content

    # --- methods side by side, and all jobs together ----------------------------------------------------

    async def trials(
        self, job_id: str, *, label: str | None = None, state: str | Sequence[str] = ()
    ) -> Rows[TrialResult]:
        """Every training of the job, with its hyperparameters, its state and its accuracies; with `label` those of one
        run, with `state` those in one of these states."""
        params = {key: value for key, value in {"label": label, "state": state}.items() if value}
        return await self._exchange.rows(TrialResult, _path(job_id, "trials"), params=params)

    async def comparison(self, job_id: str) -> Rows[ComparedRun]:
        """The runs of the job side by side: how good the models of each became, and what training them took."""
        params = {"format": "json"}
        return await self._exchange.rows(ComparedRun, _path(job_id, "comparison"), params=params)

    async def comparison_file(self, job_id: str, kind: str) -> bytes:
        """The comparison of the job's runs as a file of the kind csv, with a line for each run, or png or svg, a figure
        of accuracy over cost."""
        return (await self._exchange.answer("GET", _path(job_id, "comparison"), params={"format": kind})).content

    async def study(self, job_id: str, *, label: str | None = None) -> Rows[StudyRow]:
        """The test accuracy of each variant of the job's study (by default of its first) at each batch size."""
        params = _given(format="json", label=label)
        return await self._exchange.rows(StudyRow, _path(job_id, "study"), params=params)

    async def study_file(self, job_id: str, kind: str) -> bytes:
        """The table of the job's first study as a file of the kind csv, or png or svg, a figure of accuracy over epochs
        and batch size."""
        return (await self._exchange.answer("GET", _path(job_id, "study"), params={"format": kind})).content

    async def study_of_experiment(self, experiment: str) -> Rows[StudyRow]:
        """The studies of all jobs of the experiment as one: the test accuracy of each variant at each batch size."""
        params = {"experiment": experiment, "format": "json"}
        return await self._exchange.rows(StudyRow, "/v1/study", params=params)

    async def study_of_experiment_file(self, experiment: str, kind: str) -> bytes:
        """The studies of all jobs of the experiment as one, as a file of the kind csv, png or svg."""
        return (
            await self._exchange.answer("GET", "/v1/study", params={"experiment": experiment, "format": kind})
        ).content

    async def ramp(self, job_id: str, *, label: str | None = None) -> Rows[BatchRamp]:
        """The largest batch sizes of the job's batch ramp (by default of its first) before validation accuracy fell,
        seed by seed."""
        return await self._exchange.rows(BatchRamp, _path(job_id, "ramp"), params=_given(label=label))

    def history(
        self,
        *,
        model: str | None = None,
        dataset: str | None = None,
        optimizer: str | None = None,
        batch: int | None = None,
        method: str | None = None,
        label: str | None = None,
        state: str | Sequence[str] = (),
        page_size: int = 500,
    ) -> AsyncGenerator[HistoryStep, None]:
        """Yield every epoch of all jobs that match, newest jobs first; pages are fetched as they are needed."""
        params: dict[str, Any] = {"model": model, "dataset": dataset, "optimizer": optimizer, "batch": batch}
        params |= {"method": method, "label": label, "state": state, "limit": page_size, "format": "json"}
        return self._exchange.pages(
            HistoryStep, "/v1/lr-history", {key: value for key, value in params.items() if value}
        )

    async def recommendation(
        self,
        model: str,
        dataset: str,
        *,
        batch: int | None = None,
        optimizer: str | None = None,
        path: str | None = None,
    ) -> Recommendation:
        """The learning rate to begin with, by what past jobs with this model and dataset chose. `path` is the folder of
        the images where the dataset is image-folder."""
        params = _given(model=model, dataset=dataset, batch=batch, optimizer=optimizer, path=path)
        return await self._exchange.one(Recommendation, "GET", "/v1/recommendation", params=params)

    # --- before a job, and many of them ------------------------------------------------------------------

    async def plan(self, spec: JobSpec | Mapping[str, Any]) -> Plan:
        """A forecast of what a spec takes in iterations and samples; nothing is stored and nothing starts."""
        return await self._exchange.one(Plan, "POST", "/v1/plan", headers=JSON, content=_as_json(spec))

    async def experiments(self) -> Rows[ExperimentFacts]:
        """The experiments that can be run, each with its paper and its figures."""
        return await self._exchange.rows(ExperimentFacts, "/v1/experiments")

    async def run_experiment(
        self,
        name: str,
        scale: str = "fashion-mnist",
        /,
        *,
        priority: int = 0,
        time_limit: int | None = None,
        **spec: Any,
    ) -> ExperimentJobs:
        """Submit the jobs of an experiment. The keys `spec` of a JobSpec hold for each, and so do `priority` and
        `time_limit`, as `submit` has them."""
        # chosen here: a request that is sent again finds its jobs
        group = f"{name}-{uuid4().hex[:8]}"
        document = {"name": name, "scale": scale, "spec": spec, "experiment": group}
        content = json.dumps(document | _given(priority=priority or None, time_limit=time_limit))
        return await self._exchange.one(ExperimentJobs, "POST", "/v1/experiments", headers=JSON, content=content)

    # --- API keys ----------------------------------------------------------------------------------------

    async def create_key(
        self, owner: str, *, name: str = "", scope: Scope = "submit", expires_at: datetime | None = None
    ) -> NewApiKey:
        """Make an API key of `owner`, which takes one of an admin; its secret is in the answer, and never told again.
        `expires_at` has a time zone; None: the key does not end by itself."""
        ends = None if expires_at is None else expires_at.isoformat()
        document = json.dumps({"owner": owner, "name": name, "scope": scope, "expires_at": ends})
        return await self._exchange.one(NewApiKey, "POST", "/v1/keys", headers=JSON, content=document)

    async def keys(self) -> Rows[ApiKey]:
        """Every API key that was ever made, oldest first, without secrets; this takes a key of an admin."""
        return await self._exchange.rows(ApiKey, "/v1/keys")

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke an API key, given by its id or by how it begins; this takes a key of an admin."""
        return await self._exchange.one(ApiKey, "DELETE", f"/v1/keys/{quote(key_id, safe='')}", headers=JSON)

    async def whoami(self) -> Login:
        """Whose jobs this client's requests are about, and what they may do."""
        return await self._exchange.one(Login, "GET", "/v1/session")

    # --- webhooks ----------------------------------------------------------------------------------------

    async def create_webhook(self, url: str, events: Sequence[EventType]) -> NewWebhook:
        """Register a URL that is told of these types of events of all jobs from now on. Its secret is in the answer,
        and never told again; a URL that has a webhook already gets a new one."""
        document = json.dumps({"url": url, "events": list(events)})
        return await self._exchange.one(NewWebhook, "POST", "/v1/webhooks", headers=JSON, content=document)

    async def webhooks(self) -> Rows[Webhook]:
        """All webhooks, oldest first, and how telling them goes."""
        return await self._exchange.rows(Webhook, "/v1/webhooks")

    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook; one that is not there stays so."""
        await self._exchange.answer("DELETE", f"/v1/webhooks/{quote(webhook_id, safe='')}", headers=JSON)

    async def test_webhook(self, webhook_id: str) -> WebhookTest:
        """Have the service send a test to the webhook at once, and return what became of it."""
        path = f"/v1/webhooks/{quote(webhook_id, safe='')}/test"
        return await self._exchange.one(WebhookTest, "POST", path, headers=JSON)


def _path(job_id: str, *more: str) -> str:
    return "/".join(["/v1/jobs", quote(job_id, safe=""), *more])


def _given(**params: Any) -> dict[str, Any]:
    """The parameters that are not None; for the others the service has defaults."""
    return {name: value for name, value in params.items() if value is not None}


def _as_json(spec: JobSpec | Mapping[str, Any]) -> str:
    return spec.model_dump_json() if isinstance(spec, JobSpec) else json.dumps(dict(spec))
