"""The Python client of the service, with and without asyncio. Its errors are in forerun/errors.py."""

from typing import Self

import httpx

from forerun.blocking import Facade, blocking
from forerun.calls import Calls
from forerun.connection import DEFAULT_URL, AsyncConnection, BlockingConnection, checked_url, headers_of
from forerun.errors import ApiError, JobFailed, ServiceUnreachable, raise_unless_succeeded
from forerun.exchange import Exchange
from forerun.jobs import handing_out

__all__ = [
    "DEFAULT_URL",
    "ApiError",
    "AsyncClient",
    "Client",
    "JobFailed",
    "ServiceUnreachable",
    "raise_unless_succeeded",
]


class AsyncClient(Calls):
    """A connection to the service at `base_url`; close it, or use it in an `async with`.

    Its methods are those of `Client`, as coroutines and asynchronous generators; they run under asyncio.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        api_key: str | None = None,
    ) -> None:
        url, headers = checked_url(base_url), headers_of(api_key)
        self.base_url = base_url
        # trust_env: no proxy and no .netrc between us and the address that we were given
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, trust_env=False, transport=transport)
        super().__init__(Exchange(AsyncConnection(http), base_url, timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Client(Facade[Calls]):
    """A connection to the service at `base_url`; close it, or use it in a `with`.

    Every method raises `ApiError` when the service refuses and `ServiceUnreachable` when it does not answer. A request
    whose answer was lost is sent again, at growing intervals: every call of the API may be repeated. `timeout` is in
    seconds, of one try. `api_key` is sent with every request; None: that of the environment variable FORERUN_API_KEY,
    and "": none. `ValueError` when `base_url` is not an http URL, or `api_key` cannot be a key.

    Answers are read-only pydantic models (service/wire/answers). Fields that only a newer service knows are left out.
    What each method does is written in forerun/calls.py.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        *,
        api_key: str | None = None,
    ) -> None:
        url, headers = checked_url(base_url), headers_of(api_key)
        self.base_url = base_url
        http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False, transport=transport)
        super().__init__(Calls(Exchange(BlockingConnection(http), base_url, timeout)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    close = blocking(Calls.close)

    submit = handing_out(Calls.submit)
    job = handing_out(Calls.job)
    read_job = blocking(Calls.read_job)
    jobs = blocking(Calls.jobs)
    cancel = blocking(Calls.cancel)
    pause = blocking(Calls.pause)
    resume = blocking(Calls.resume)
    change = blocking(Calls.change)
    retry = handing_out(Calls.retry)
    delete = blocking(Calls.delete)
    logs = blocking(Calls.logs)
    wait = blocking(Calls.wait)
    events = blocking(Calls.events)

    epochs = blocking(Calls.epochs)
    branches = blocking(Calls.branches)
    lr_history = blocking(Calls.lr_history)
    lr_history_csv = blocking(Calls.lr_history_csv)
    schedule = blocking(Calls.schedule)
    download_weights = blocking(Calls.download_weights)
    selector_replay = blocking(Calls.selector_replay)
    decisions = blocking(Calls.decisions)
    decisions_figure = blocking(Calls.decisions_figure)
    layers = blocking(Calls.layers)
    layers_figure = blocking(Calls.layers_figure)

    trials = blocking(Calls.trials)
    comparison = blocking(Calls.comparison)
    comparison_file = blocking(Calls.comparison_file)
    study = blocking(Calls.study)
    study_file = blocking(Calls.study_file)
    study_of_experiment = blocking(Calls.study_of_experiment)
    study_of_experiment_file = blocking(Calls.study_of_experiment_file)
    ramp = blocking(Calls.ramp)
    history = blocking(Calls.history)
    recommendation = blocking(Calls.recommendation)

    plan = blocking(Calls.plan)
    experiments = blocking(Calls.experiments)
    run_experiment = blocking(Calls.run_experiment)

    create_key = blocking(Calls.create_key)
    keys = blocking(Calls.keys)
    revoke_key = blocking(Calls.revoke_key)
    whoami = blocking(Calls.whoami)
    create_webhook = blocking(Calls.create_webhook)
    webhooks = blocking(Calls.webhooks)
    delete_webhook = blocking(Calls.delete_webhook)
    test_webhook = blocking(Calls.test_webhook)
