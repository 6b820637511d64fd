"""Specs in requests: the body as it is read and documented, and whether the service has what it takes."""

from typing import Annotated, Any

from fastapi import Depends, Request

from api.deps import Services, read_json
from service.algorithms.epoch_plan import count_train_samples
from service.errors import DatasetMissing, FieldError, InvalidInput
from service.jobs import lifecycle as jobs
from service.results import history
from service.spec.job import JobSpec
from service.store.tables import Job


async def _spec_body(request: Request) -> bytes:
    return await read_json(request, jobs.MAX_SPEC_BYTES)


RawSpec = Annotated[bytes, Depends(_spec_body)]
# The body is read raw: parse_spec is the one door for specs. So its schema is named here by hand.
SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/JobSpec"},
                "examples": {
                    example.get("name", example["model"]): {"value": example}
                    for example in JobSpec.model_json_schema()["examples"]
                },
            }
        },
    }
}


def read_spec(services: Services, raw: bytes, accepted: Job | None = None) -> JobSpec:
    """The spec in `raw`, with what it takes from past jobs. `accepted`: the job that the request has made already.
    Raises InvalidInput."""
    spec = jobs.parse_spec(raw)
    with services.store.read() as session:
        return history.complete(session, spec, accepted)


def require_means(services: Services, spec: JobSpec) -> None:
    """The dataset and the workers, as far as either is known here."""
    if services.data_is_local:
        jobs.check_dataset(spec, services.data_dir)
    capacity = services.fleet.capacity
    if capacity is not None:
        jobs.check_capacity(spec, cpus=capacity.cpus, gpus=capacity.gpus)


def train_samples(services: Services, spec: JobSpec) -> int:
    """How many samples an epoch of the spec trains on. Raises InvalidInput where the dataset is not here."""
    if services.data_is_local:
        jobs.check_dataset(spec, services.data_dir)
    try:
        return count_train_samples(spec.dataset, services.data_dir)
    except DatasetMissing as error:  # data that only the workers see
        raise InvalidInput([FieldError("dataset", spec.dataset.name, error.detail)]) from None
