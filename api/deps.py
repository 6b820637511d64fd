"""What the API's handlers are given: the services behind them, and the parts of a request that they share."""

from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from fastapi import Depends, Header, Path, Request
from pydantic import Field

from api.computing import Computing
from service.errors import (
    MAX_ERRORS,
    ContentTooLarge,
    CrossSiteRequest,
    FieldError,
    InvalidInput,
    UnsupportedMediaType,
    shortened,
)
from service.jobs.reasons import Sight
from service.spec.field_errors import unknown_key
from service.spec.methods import MethodName
from service.store.engine import Store
from service.validation.means import Means

if TYPE_CHECKING:
    from service.cluster.base import Capacity
    from service.cluster.controller import Leadership

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
    cpus, gpus = fleet.capacity.cpus, fleet.capacity.gpus
    return Sight(max(cpus, gpus), "GPU" if gpus > cpus else "CPU", fleet.trouble)


@dataclass(frozen=True)
class Services:
    """The services behind the API.

    `data_is_local`: whether the workers see the same `data_dir`, so that a missing dataset can be told at submission.
    `hosts`: the names, in lower case, that requests may be for. `storage_dir`: where the jobs' files lie.
    `max_event_streams`: how many streams of events there may be at a time. `computing`: what computes figures and
    forecasts.
    """

    store: Store
    fleet: Fleet
    data_dir: FilePath
    data_is_local: bool
    hosts: frozenset[str] = frozenset({"localhost"})
    storage_dir: FilePath = FilePath("jobs")
    max_event_streams: int = 1000
    computing: Computing = field(default_factory=Computing)

    def means(self) -> Means:
        """The folder of datasets and the size of the cluster, as known at present: what a spec is checked against."""
        capacity = self.fleet.capacity
        cpus, gpus = (None, None) if capacity is None else (capacity.cpus, capacity.gpus)
        return Means(self.data_dir, self.data_is_local, cpus, gpus)


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


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
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    ours = origin is None or origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
    if site not in (None, "same-origin", "none") or (site is None and not ours):
        whose = "another site" if origin is None else shortened(origin, 200)
        raise CrossSiteRequest(f"a page of {whose} asks for a change here; only this service's own pages may")
    if site != "same-origin":
        _require_json(request)


def _require_json(request: Request) -> None:
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


async def read_json(request: Request, limit: int) -> bytes:
    """The JSON body of a request as bytes, unparsed.

    Raises UnsupportedMediaType where the body is not sent as application/json, and ContentTooLarge where it has more
    than `limit` bytes; no more than these are read.
    """
    _require_json(request)
    body = bytearray()
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            body += chunk
            if len(body) > limit:
                size = request.headers.get("content-length", f"more than {limit}")
                raise ContentTooLarge(f"the body has {size} bytes; it may have {limit} at most; shorten it")
    return bytes(body)
