"""What the handlers are given: the services behind the API, and the parts of a request they share."""

from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from fastapi import Depends, Header, Path, Request
from pydantic import Field

from service.errors import FieldError, InvalidInput, UnsupportedMediaType
from service.spec.field_errors import unknown_key
from service.spec.methods import MethodName
from service.store.engine import Store
from service.validation.means import Means

if TYPE_CHECKING:
    from service.cluster.base import Capacity

MAX_INT = 2**31 - 1  # the database's INTEGER: larger numbers must not reach it
NO_NUL = r"^[^\x00]*$"  # PostgreSQL refuses NUL in strings


class Fleet(Protocol):
    """What the API knows of the cluster: the controller's last look at it."""

    @property
    def dashboard_url(self) -> str:
        """The Ray dashboard."""

    @property
    def capacity(self) -> "Capacity | None":
        """Last known; None: Ray has not answered yet."""

    @property
    def trouble(self) -> str | None:
        """Why Ray cannot be reached at present; None: it can."""

    def wake(self) -> None:
        """There is something new to do."""

    def logs(self, submission_id: str) -> str:
        """What an attempt has printed so far: the one thing that is asked of Ray. Raises ClusterUnreachable."""


@dataclass(frozen=True)
class Services:
    """`data_is_local`: the workers see the same `data_dir`, so a missing dataset can be told at the door.

    `hosts`: the names, in lower case, that requests may be for. `storage_dir`: where the jobs' files lie.
    """

    store: Store
    fleet: Fleet
    data_dir: FilePath
    data_is_local: bool
    hosts: frozenset[str] = frozenset({"localhost"})
    storage_dir: FilePath = FilePath("jobs")

    def means(self) -> Means:
        """What is known at present of where a job would run."""
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
FORMAT = "Goes before the Accept header."  # the query's `format` does


async def known_parameters(request: Request) -> None:
    """A query parameter that the OpenAPI document does not name is an error, not ignored."""
    path = request.app.openapi()["paths"].get(request.scope["route"].path)
    if path is None:  # the worker's side, which has none
        return
    parameters = path[request.method.lower()].get("parameters", ())
    known = [parameter["name"] for parameter in parameters if parameter["in"] == "query"]
    errors = [
        FieldError(name, value[:200], _unknown(name, known))
        for name, value in request.query_params.items()
        if name not in known
    ]
    if errors:
        raise InvalidInput(errors)


def _unknown(name: str, known: list[str]) -> str:
    """What is wrong with the parameter: a run was asked for by its method once, and is by its label now."""
    if name == "method" and "label" in known:
        return "a run is asked for by its label now, which is the method's name unless the spec says another: use label"
    return unknown_key(name, known, "parameter")


def split(values: Any) -> Any:
    """`state=a&state=b` and `state=a,b` mean the same."""
    return [part for value in values for part in value.split(",")] if isinstance(values, list) else values


async def read_json(request: Request, limit: int) -> bytes:
    """The request's JSON, unparsed. Raises InvalidInput when it has more than `limit` bytes, and reads no further."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"send the body as application/json, not as {media_type or 'nothing in particular'}")
    body = bytearray()
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            body += chunk
            if len(body) > limit:
                size = request.headers.get("content-length", f"more than {limit}")
                message = f"it may have {limit} bytes at most; shorten it"
                raise InvalidInput([FieldError("body", f"{size} bytes", message)])
    return bytes(body)
