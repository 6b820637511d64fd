"""What the API's handlers are given: the services behind them, and the parts of a request that they share."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from fastapi import BackgroundTasks, Depends, Header, Path, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field
from structlog.contextvars import bind_contextvars

from api.computing import Computing
from api.gate import EVERYBODY, NOBODY, Caller, Credential, Gate
from api.readiness import Readiness
from service.access.keys import note_use
from service.errors import (
    MAX_ERRORS,
    CrossSiteRequest,
    FieldError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    UnsupportedMediaType,
    shortened,
)
from service.jobs.reasons import Sight
from service.spec.field_errors import unknown_key
from service.spec.methods import MethodName
from service.store.engine import DatabaseError, Store, trouble_of
from service.store.jobs import check_job
from service.store.records import ApiKey
from service.validation.means import Means
from service.webhooks.hosts import AllowedHosts
from service.webhooks.sender import Sender
from service.wire.answers import Scope

if TYPE_CHECKING:
    from service.cluster.base import Capacity
    from service.cluster.controller import Leadership
    from service.jobs.quota import Quota

MAX_INT = 2**31 - 1  # the database's INTEGER: larger numbers must not reach it
NO_NUL = r"^[^\x00]*$"  # PostgreSQL refuses NUL in strings


class Fleet(Protocol):
    """What the API knows of the Ray cluster, by the controller's last look at it."""

    @property
    def dashboard_url(self) -> str:
        """URL of the Ray dashboard."""

    @property
    def capacity(self) -> "Capacity | None":
        """The resources of the cluster, as Ray last told them. None where Ray has not answered yet."""

    @property
    def trouble(self) -> str | None:
        """A sentence on why Ray cannot be reached at present. None where it can be reached."""

    @property
    def quota(self) -> "Quota":
        """What one owner may take of the cluster."""

    @property
    def leadership(self) -> "Leadership":
        """Which of the services on this database leads, by the last look at it."""

    def wake(self) -> None:
        """Tell the controller that there is something new to do."""

    def logs(self, submission_id: str) -> str:
        """What the attempt with this Ray job has printed so far; nothing else is asked of Ray while a request waits.
        Raises ClusterUnreachable where Ray does not answer."""


def sight_of(fleet: Fleet) -> Sight:
    """What the controller's last look at the cluster means for jobs that wait."""
    if not fleet.leadership.leads:  # whoever leads has a cluster of its own, or looks at this one, too
        return Sight()
    if fleet.capacity is None:
        return Sight(trouble=fleet.trouble)
    of = "GPU" if fleet.capacity.gpus > fleet.capacity.cpus else "CPU"
    return Sight(fleet.capacity.workers, of, fleet.trouble, fleet.quota)


@dataclass(frozen=True)
class Services:
    """The services behind the API.

    `data_is_local`: whether the workers see the same `data_dir`, so that a missing dataset can be told at submission.
    `hosts`: the names, in lower case, that requests may be for. `storage_dir`: where the jobs' files lie.
    `max_event_streams`: how many streams of events there may be at a time. `min_free_bytes`: how much room the service
    needs, beside the database and the jobs' files, to be ready. `computing`: what computes figures and forecasts.
    `gate`: who may do what. As a handler gets them, `store` is the database in the hands of the caller.
    """

    store: Store
    fleet: Fleet
    data_dir: FilePath
    data_is_local: bool
    hosts: frozenset[str] = frozenset({"localhost"})
    storage_dir: FilePath = FilePath("jobs")
    max_event_streams: int = 1000
    min_free_bytes: int = 0
    computing: Computing = field(default_factory=Computing)
    gate: Gate = field(default_factory=Gate)
    sender: Sender = field(default_factory=lambda: Sender(AllowedHosts()))  # of messages to webhooks

    @cached_property
    def readiness(self) -> Readiness:
        """Whether the service can work."""
        folders = [self.storage_dir, *([] if self.store.file is None else [self.store.file.parent])]
        return Readiness(self.store, folders, self.min_free_bytes)

    def means(self) -> Means:
        """The folder of datasets and the size of the cluster, as known at present: what a spec is checked against."""
        capacity = self.fleet.capacity if self.fleet.leadership.leads else None  # who leads may have another cluster
        cpus, gpus = (None, None) if capacity is None else (capacity.cpus, capacity.gpus)
        return Means(self.data_dir, self.data_is_local, cpus, gpus)


# --- who may do what -------------------------------------------------------------------------------

COOKIE = "forerun_session"
UNCHANGING = frozenset({"GET", "HEAD", "OPTIONS"})
FOR_ANYBODY = frozenset({"/healthz", "/readyz", "/docs"})
FOR_WORKERS = "/internal/"  # which have a ticket and a token of their own
FOR_ADMINS = ("/v1/keys", "/v1/webhooks")  # a webhook is told of all jobs
FOR_READERS = frozenset({("POST", "/v1/plan"), ("POST", "/v1/session"), ("DELETE", "/v1/session")})


def scope_needed(method: str, path: str) -> Scope | None:
    """The scope that a request takes, by its method and the path of its route; None where anybody may send it. A route
    that nobody thought of here takes `read`, or `submit` where its method may change something."""
    if path in FOR_ANYBODY or path.startswith(FOR_WORKERS):
        return None
    if path.startswith(FOR_ADMINS):
        return "admin"
    return "read" if method in UNCHANGING or (method, path) in FOR_READERS else "submit"


async def caller(request: Request, background: BackgroundTasks) -> Caller:
    """Who a request is from: every route depends on this, so that none can be reached without it.

    Raises NotAuthenticated where the service asks for an API key and none that is valid came, NotAllowed where its
    scope does not reach, TooManyRequests where it sends too many, and NotFound where the path names a job that is not
    its owner's.
    """
    services: Services = request.app.state.services
    needed = scope_needed(request.method, request.scope["route"].path)
    if needed is None:
        return NOBODY  # without a look at the database, which may be away
    who = await _identified(request)
    if who.key is None:
        return who
    await services.gate.count(who.key)
    if not who.may(needed):
        raise NotAllowed(f"this takes an API key with the scope {needed}; this one has the scope {who.scope}")
    if who.is_login and request.method not in UNCHANGING and _asked_by_our_page(request) is not True:
        # a cookie comes along whoever asks
        raise NotAllowed("a browser that is logged in may ask for changes from this service's own pages alone")
    job_id = request.path_params.get("job_id")
    deletes = request.method == "DELETE"  # of what is not there any more: that is fine within a day
    if job_id is not None and not deletes and "\x00" not in job_id and not who.may("admin"):
        await run_in_threadpool(_check_job, services.store.of_owner(who.owner, all_jobs=False), job_id)
    if services.gate.is_use_to_be_noted(who.key):
        background.add_task(_note_use, services.store, who.key)  # when the answer is sent: reading waits for no writing
    return who


def _note_use(store: Store, key: ApiKey) -> None:
    """Note that an API key is used; while the database cannot be used nobody misses it."""
    try:
        note_use(store, key)
    except DatabaseError as error:
        if trouble_of(error) is None:
            raise


async def is_known(request: Request) -> bool:
    """Whether a request to a route that is open to anybody is from somebody who may read."""
    try:
        return (await _identified(request)).may("read")
    except (NotAuthenticated, DatabaseError):
        return False


async def _identified(request: Request) -> Caller:
    """Who the request says it is from. Raises NotAuthenticated where that is nobody, and the service asks for a key."""
    services: Services = request.app.state.services
    store, gate = services.store, services.gate
    is_open = gate.remembers_whether_open()
    if await run_in_threadpool(gate.is_open, store) if is_open is None else is_open:
        return EVERYBODY
    credential = _credential(request)
    key = gate.remembered(credential)
    if key is None:
        key = await run_in_threadpool(gate.known, store, credential)
    return Caller(key.scope, key, credential.is_cookie)


def _credential(request: Request) -> Credential:
    """What the request says it is from. Raises NotAuthenticated where it says nothing."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return Credential(key.strip())
    if cookie := request.cookies.get(COOKIE):
        return Credential(cookie, is_cookie=True)
    raise NotAuthenticated(
        "send an API key, as the header Authorization: Bearer; the client and the command line take it from "
        "FORERUN_API_KEY. On the server `forerun keys create OWNER --local` makes one"
    )


def _check_job(store: Store, job_id: str) -> None:
    with store.read() as session:
        check_job(session, job_id)


CallerOf = Annotated[Caller, Depends(caller)]


async def _services(request: Request, who: CallerOf) -> Services:
    """The services in the hands of the caller: the store shows them their jobs, and what they submit is theirs."""
    services: Services = request.app.state.services
    if who.key is None:
        return services
    return replace(services, store=services.store.of_owner(who.owner, all_jobs=who.may("admin")))


async def stream_slot(services: "ServicesOf", who: CallerOf) -> AsyncIterator[None]:
    """Count a stream of events among those of its caller's key until it ends. Raises TooManyRequests where it is one
    too many."""
    with services.gate.stream(who.key):
        yield


ServicesOf = Annotated[Services, Depends(_services)]

JobId = Annotated[
    str,
    Path(min_length=1, max_length=100, pattern=NO_NUL, description="Id of a job.", examples=["job-0123456789abcdef"]),
]
EpochNumber = Annotated[int, Path(ge=1, le=MAX_INT, description="Number of an epoch, from 1.")]
AnyMethod = Literal[MethodName, "replay"]
RunLabel = Annotated[str, Field(max_length=50, pattern=NO_NUL)]
Text = Annotated[str, Field(max_length=200, pattern=NO_NUL)]
Accept = Annotated[str, Header(include_in_schema=False)]
FORMAT = "Format of the answer; goes before the Accept header."


async def bound_to_log(request: Request) -> None:
    """Have what is logged for this request tell of which job it is."""
    if "job_id" in request.path_params:
        bind_contextvars(job=request.path_params["job_id"])


async def known_parameters(request: Request) -> None:
    """Raise InvalidInput where the query has a parameter that the OpenAPI document does not name for this route."""
    path = request.app.openapi()["paths"].get(request.scope["route"].path)
    if path is None:  # the worker's side, which has none
        return
    parameters = path[request.method.lower()].get("parameters", ())
    known = [parameter["name"] for parameter in parameters if parameter["in"] == "query"]
    unknown = [(name, value) for name, value in request.query_params.items() if name not in known]
    if unknown:
        # what they may be meant for is looked up for those that are told
        told = [FieldError(name, value[:200], _unknown(name, known)) for name, value in unknown[:MAX_ERRORS]]
        raise InvalidInput([*told, *(FieldError(name, None, "unknown") for name, _ in unknown[MAX_ERRORS:])])


def _unknown(name: str, known: list[str]) -> str:
    """The message about an unknown parameter. `method` used to select a run, which is selected by its `label` now."""
    if name == "method" and "label" in known:
        return "a run is asked for by its label now, which is the method's name unless the spec says another: use label"
    return unknown_key(name, known, "parameter")


async def of_this_site(request: Request) -> None:
    """Refuse a request for a change that a page of another site may have sent by a user's browser.

    What a browser says of the page decides: Sec-Fetch-Site, and where that is absent Origin, which must be this
    service. Raises CrossSiteRequest otherwise. A request without both must be sent as application/json, with or
    without a body: no page can send that elsewhere without asking first, by a request that is not answered. Raises
    UnsupportedMediaType otherwise.
    """
    if request.method in UNCHANGING:
        return
    if _asked_by_our_page(request) is False:
        origin = request.headers.get("origin")
        whose = "another site" if origin is None else shortened(origin, 200)
        raise CrossSiteRequest(f"a page of {whose} asks for a change here; only this service's own pages may")
    if request.headers.get("sec-fetch-site") != "same-origin":
        require_json(request)


def _asked_by_our_page(request: Request) -> bool | None:
    """Whether a page of this service asks, by what the browser says; None where nothing says that any page does."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return None if site == "none" else site == "same-origin"
    if origin is None:
        return None
    return origin.partition("://")[2].lower() == request.headers.get("host", "").lower()


def require_json(request: Request) -> None:
    """Raise UnsupportedMediaType where a request is not sent as application/json."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        given = shortened(media_type, 200) or "nothing in particular"
        raise UnsupportedMediaType(
            f"send the header Content-Type: application/json with every request that changes something, with or "
            f"without a body; this one is sent as {given}"
        )


def split(values: Any) -> Any:
    """Split every value of a query parameter at its commas, so that `state=a&state=b` and `state=a,b` mean the same.
    What is not a list is returned unchanged."""
    return [part for value in values for part in value.split(",")] if isinstance(values, list) else values
